"""sqlite3 itself: what inserting rows costs before anybody makes a queue of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.contenders.base import VARIANT, Contender

_INSERT = "INSERT INTO task (body) VALUES (?)"
_BODY = (b"x" * 200,)


class OnRaw(Contender):
    """Rows of 200 bytes, with nothing that would run them."""

    transactional = bulk = True

    def set_up(self) -> None:
        path = Path(os.environ["SOC_TASKS_BENCH_FOLDER"]) / "raw.sqlite3"
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute(f"PRAGMA synchronous={VARIANT}")
        self._connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, body BLOB)")

    def call(self, *arguments: int | str) -> None:
        self._connection.execute(_INSERT, _BODY)

    def call_many(self, count: int) -> None:
        with self.transaction():
            self._connection.executemany(_INSERT, [_BODY] * count)

    def transaction(self) -> AbstractContextManager[object]:
        self._connection.execute("BEGIN")
        return self._connection

    def commands(self) -> list[list[str]]:
        return []


contender = OnRaw()
