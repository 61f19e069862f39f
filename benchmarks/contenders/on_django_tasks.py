"""django-tasks with its database backend (django-tasks-db), two workers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.contenders.base import Contender, find_django_file, set_up_django
from benchmarks.processes import python


class OnDjangoTasks(Contender):
    """Two workers that look once a second while there is nothing to do, as by default."""

    transactional = True

    def set_up(self) -> None:
        set_up_django("benchmarks.contenders.settings", "django_tasks", "django_tasks_db")

    def call(self, *arguments: int | str) -> None:
        from benchmarks.contenders.django_tasks_work import call

        call.enqueue(*arguments)

    def transaction(self) -> AbstractContextManager[object]:
        from django.db import transaction

        return transaction.atomic()

    def commands(self) -> list[list[str]]:
        return [python("-m", "django", "db_worker", "-v", "0", "--no-startup-delay")] * 2

    @property
    def database_file(self) -> Path | None:
        return find_django_file()


contender = OnDjangoTasks()
