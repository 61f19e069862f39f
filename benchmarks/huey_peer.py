"""The same task on huey, with its SQLite at synchronous=NORMAL (its default is FULL), as ours runs here."""

from __future__ import annotations

import os
from typing import Any

from huey import Huey
from huey.storage import SqliteStorage

from benchmarks import marks
from benchmarks.deferred import work


class NormalStorage(SqliteStorage):
    """Commits without waiting for the disk each time, in WAL mode."""

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection


huey = Huey(storage_class=NormalStorage, filename=os.environ["SOC_TASKS_BENCH_DATABASE"] + ".huey")


@huey.task()
def noop() -> None:
    """Say that it ran."""
    marks.hit()


#: The function that `benchmarks.deferred` has called everywhere.
call = huey.task()(work.noop)
