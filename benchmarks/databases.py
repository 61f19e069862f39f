"""Databases that are measured: SQLite files as everybody here has them, and a PostgreSQL that keeps its promises."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def sqlite_entry(path: Path | str, synchronous: str = "NORMAL") -> Entry:
    """Return the entry of DATABASES for a SQLite file in WAL mode."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}",
        },
    }


def read_entry() -> Entry:
    """Return the entry that the environment names, by its options or by the path of a SQLite file."""
    if given := os.environ.get("SOC_TASKS_BENCH_OPTIONS"):
        entry: Entry = json.loads(given)
        return entry
    return sqlite_entry(os.environ["SOC_TASKS_BENCH_DATABASE"])


class Postgres:
    """A PostgreSQL server at its defaults: what it has committed is on the disk. Started when it is first needed."""

    def __init__(self) -> None:
        self._server: Any = None

    @staticmethod
    def find_missing() -> str | None:
        """Return what is missing, and how to get it."""
        from tests.servers import PostgresServer

        return PostgresServer.missing()

    def make_database(self) -> tuple[Entry, list[int]]:
        """Return the entry of a new database, and the server's process."""
        if self._server is None:
            self._server = _make_durable()
        name = self._server.create_database()
        return self._server.options(name), [self._server.process.pid]

    def drop(self, entry: Entry) -> None:
        """Drop a database."""
        self._server.drop_database(entry["NAME"])

    def end(self) -> None:
        """End the server, if it runs."""
        if self._server is not None:
            self._server.end()
            self._server = None


def _make_durable() -> Any:
    from tests.servers import PostgresServer

    class DurableServer(PostgresServer):
        """The tests' server, with the durability that they go without."""

        def command(self) -> list[str]:
            # The last one counts.
            return [*super().command(), "-c", "fsync=on", "-c", "full_page_writes=on", "-c", "deadlock_timeout=1s"]

    return DurableServer()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Have a server at hand for as long as the block lasts."""
    server = Postgres()
    try:
        yield server
    finally:
        server.end()
