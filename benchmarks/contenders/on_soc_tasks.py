"""soc_tasks: the embedded engine, two worker processes, everything else by default; the variant is their window."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.contenders.base import VARIANT, Contender, find_django_file, set_up_django
from benchmarks.processes import python

#: Tasks of one call of startTasks.
CHUNK = 10_000


class SocTasks(Contender):
    """Takes calls by `startTask`; those with arguments by `defer`."""

    transactional = bulk = ours = True

    def set_up(self) -> None:
        set_up_django("benchmarks.settings")

    def call(self, *arguments: int | str) -> None:
        from soc_tasks import defer, startTask

        if arguments:
            from benchmarks.contenders.work import noop

            defer(noop, *arguments)
        else:
            startTask("noop")

    def call_many(self, count: int) -> None:
        from soc_tasks import startTasks

        for start in range(0, count, CHUNK):
            startTasks([{"url": "noop"}] * min(CHUNK, count - start))

    def transaction(self) -> AbstractContextManager[object]:
        from django.db import transaction

        return transaction.atomic()

    def commands(self) -> list[list[str]]:
        window = ("--window", VARIANT) if VARIANT else ()
        return [python("-m", "django", "tasks", "-v", "0", "run", "--processes", "2", *window)]

    @property
    def database_file(self) -> Path | None:
        return find_django_file()


contender = SocTasks()
