"""django-q2 with its ORM broker, fetching 50 at a time and saving no results, which is its fastest."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.contenders.base import Contender, find_django_file, set_up_django
from benchmarks.contenders.work import noop
from benchmarks.processes import python


class OnDjangoQ(Contender):
    """A cluster of two workers."""

    transactional = True

    def set_up(self) -> None:
        set_up_django("benchmarks.contenders.settings", "django_q")

    def call(self, *arguments: int | str) -> None:
        from django_q.tasks import async_task

        async_task(noop, *arguments)

    def transaction(self) -> AbstractContextManager[object]:
        from django.db import transaction

        return transaction.atomic()

    def commands(self) -> list[list[str]]:
        return [python("-m", "django", "qcluster", "-v", "0")]

    @property
    def database_file(self) -> Path | None:
        return find_django_file()


contender = OnDjangoQ()
