"""Procrastinate on PostgreSQL: two workers that run eight tasks at a time each."""

from __future__ import annotations

from typing import Any

from procrastinate import App, PsycopgConnector

from benchmarks.contenders.base import Contender
from benchmarks.contenders.work import noop
from benchmarks.databases import read_entry
from benchmarks.processes import python


def read_connection() -> dict[str, Any]:
    """Return where the database is."""
    entry = read_entry()
    return {"host": entry["HOST"], "port": int(entry["PORT"]), "user": entry["USER"], "dbname": entry["NAME"]}


app = App(connector=PsycopgConnector(kwargs=read_connection()))
task = app.task(name="noop")(noop)


class OnProcrastinate(Contender):
    """In bulk by `batch_defer`, 1,000 at a time."""

    bulk = True

    def set_up(self) -> None:
        # Opened by a program without an event loop, it goes on by a pool of plain connections.
        app.open()
        app.schema_manager.apply_schema()

    def call(self, *arguments: int | str) -> None:
        task.defer(**dict(zip(("number", "address"), arguments, strict=False)))

    def call_many(self, count: int) -> None:
        for start in range(0, count, 1000):
            task.batch_defer(*[{}] * min(1000, count - start))

    def commands(self) -> list[list[str]]:
        module = "benchmarks.contenders.on_procrastinate.app"
        return [python("-m", "procrastinate", "-a", module, "worker", "--concurrency", "8")] * 2


contender = OnProcrastinate()
