"""What a contender can do: be set up, take calls, and name the processes that run them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

#: Which form of it is measured, where there are several; its workers read that, too.
VARIANT = os.environ.get("SOC_TASKS_BENCH_VARIANT", "")
#: Where Redis listens, for those who use it.
REDIS_PORT = int(os.environ.get("SOC_TASKS_BENCH_REDIS", "0"))


class Contender(ABC):
    """Takes calls of `work.noop`, and has them run by workers."""

    #: Whether `call` can be part of the caller's transaction (`transaction`), and whether there is `call_many`.
    transactional = False
    bulk = False
    #: Whether it is soc_tasks.
    ours = False

    def set_up(self) -> None:  # noqa: B027 - nothing, for most
        """Make tables, connect."""

    @abstractmethod
    def call(self, *arguments: int | str) -> None:
        """Have a call run by the workers."""

    def call_many(self, count: int) -> None:
        """Have so many calls without arguments run, by as few commands as it can."""
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[object]:
        """Return a transaction of the database."""
        raise NotImplementedError

    @abstractmethod
    def commands(self) -> list[list[str]]:
        """Return what starts its workers."""

    @contextmanager
    def serving(self) -> Iterator[list[int]]:
        """Have its own servers run, which others do without; give their processes."""
        yield []

    def hold(self) -> None:  # noqa: B027 - likewise
        """Have nothing run until `release`: for those who have no workers that could be started later."""

    def release(self) -> None:  # noqa: B027 - likewise
        """Let it run."""

    @property
    def database_file(self) -> Path | None:
        """Return the SQLite file where the tasks are."""
        return None


def set_up_django(settings: str, *apps: str) -> None:
    """Set Django up on a new database, with tables."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ["SOC_TASKS_BENCH_APPS"] = " ".join(apps)
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)


def find_django_file() -> Path | None:
    """Return the SQLite file of Django's default database."""
    from django.db import connection

    return Path(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else None
