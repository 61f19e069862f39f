"""Huey: on SQLite by default (synchronous=FULL), forced to NORMAL, and on Redis."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huey import Huey, RedisHuey
from huey.storage import SqliteStorage

from benchmarks.contenders.base import REDIS_PORT, VARIANT, Contender
from benchmarks.contenders.work import noop
from benchmarks.processes import python

FILE = Path(os.environ["SOC_TASKS_BENCH_FOLDER"]) / "huey.sqlite3"


class NormalStorage(SqliteStorage):  # type: ignore[misc]
    """Commits without waiting for the disk each time, which Huey has no setting for."""

    def _create_connection(self) -> Any:
        connection = super()._create_connection()
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection


def make_huey() -> Any:
    """Return the form of it that is measured."""
    if VARIANT == "redis":
        return RedisHuey("bench", host="127.0.0.1", port=REDIS_PORT)
    return Huey(storage_class=NormalStorage if VARIANT == "normal" else SqliteStorage, filename=str(FILE))


huey = make_huey()
task = huey.task()(noop)


class OnHuey(Contender):
    """Two processes."""

    def call(self, *arguments: int | str) -> None:
        task(*arguments)

    def commands(self) -> list[list[str]]:
        consumer = ("-m", "huey.bin.huey_consumer", "benchmarks.contenders.on_huey.huey")
        return [python(*consumer, "-k", "process", "-w", "2", "-q", "-n")]

    @property
    def database_file(self) -> Path | None:
        return None if VARIANT == "redis" else FILE


contender = OnHuey()
