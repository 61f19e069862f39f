"""The store on PostgreSQL: a claim locks, marks and returns rows in one statement; NOTIFY wakes other machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from django.db import DatabaseError, Error, connections
from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.rates import Share
from soc_tasks.engine.store.columns import split
from soc_tasks.engine.store.enqueue import INTO
from soc_tasks.engine.store.listening import CHANNEL, PostgresListener
from soc_tasks.engine.store.locking import DUE, LockingStore
from soc_tasks.engine.store.rows import GIVEN, TASKS, WORKERS, Leased, State, by_due, write_insert

# A worker that is being struck off waits for this claim, and takes over what it leased.
_WORKER = f"worker AS MATERIALIZED (SELECT id FROM {WORKERS} WHERE id = %s FOR SHARE)"
_TURN = f"SELECT id, due, row_number() OVER (ORDER BY due, id) AS turn FROM (SELECT id, due {DUE}) AS part"
_LEASE = (
    f"WITH {_WORKER}, chosen AS MATERIALIZED (%s) UPDATE {TASKS} AS task SET state = {State.RUNNING:d},"
    " owner = worker.id FROM worker, chosen WHERE task.id = chosen.id"
    f" RETURNING {', '.join(f'task.{column}' for column in Leased._fields)}"
)
_CLAIM_ONE_QUEUE = _LEASE % ("%s", f"SELECT id {DUE}")

#: PostgreSQL, appendix A: undefined_table.
_UNDEFINED_TABLE: Final = "42P01"


class PostgresStore(LockingStore):
    """Keeps tasks in a PostgreSQL database."""

    def read_time(self) -> int:
        """Return the server's time."""
        # now() would stand still in a transaction.
        rows = self.select("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        return int(rows[0][0])

    def read_committed(self, cursor: CursorWrapper | None) -> None:
        """Set the level as the transaction's first statement."""
        if cursor is None:
            return
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        level = getattr(connections[self.alias], "isolation_level", None)
        if level is not None and level != IsolationLevel.READ_COMMITTED:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def claim(self, cursor: CursorWrapper, worker: int, shares: Sequence[Share], limit: int) -> list[Leased]:
        """Lease up to `limit` tasks."""
        portions = self.portions(shares, limit)
        if len(shares) == 1:
            cursor.execute(_CLAIM_ONE_QUEUE, (worker, shares[0].queue, shares[0].until, portions[0]))
        else:
            union = " UNION ALL ".join([f"SELECT * FROM ({_TURN}) AS turns"] * len(shares))
            given = [
                value
                for share, most in zip(shares, portions, strict=True)
                for value in (share.queue, share.until, most)
            ]
            chosen = f"SELECT id FROM ({union}) AS every ORDER BY turn, due LIMIT %s"
            cursor.execute(_LEASE % ("%s", chosen), (worker, *given, limit))
        # RETURNING keeps no order.
        return sorted((Leased._make(row) for row in cursor.fetchall()), key=by_due)

    def insert_some(self, cursor: CursorWrapper, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows: one value for columns that are alike in all of them, an array for each of the others."""
        columns = split(rows)
        chosen = ", ".join(
            f"%s::{kind}" if place is None else f"list{place}"
            for kind, place in zip(GIVEN.values(), columns.places, strict=True)
        )
        names = ", ".join(f"list{number}" for number in range(len(columns.lists)))
        types = ", ".join(f"%s::{kind}[]" for kind in columns.kinds)
        source = f" FROM unnest({types}) AS given({names})" if names else ""
        before, after = self.insert_new
        cursor.execute(
            f"{before} {INTO} SELECT {chosen}{source}{after}",
            [*columns.values, *(list(column) for column in columns.lists)],
        )

    def insert_worker(self, cursor: CursorWrapper, values: Mapping[str, Any]) -> int:
        """Insert a worker's row."""
        cursor.execute(f"{write_insert(WORKERS, values)} RETURNING id", tuple(values.values()))
        return int(cursor.fetchone()[0])

    def read_change_mark(self) -> object:
        """Return None: what changed cannot be told more cheaply than what is due."""
        return None

    def find_risks(self) -> list[str]:
        """Return what the server is told to leave out when it commits."""
        rows = self.select(
            "SELECT name FROM pg_settings"
            " WHERE setting = 'off' AND name IN ('fsync', 'synchronous_commit') ORDER BY name"
        )
        return [
            f"PostgreSQL runs with {name} = off: what it has committed, tasks included, may be lost when it crashes."
            for (name,) in rows
        ]

    def missing_table(self, error: DatabaseError) -> bool:
        """Tell whether an error says that a table is missing."""
        return getattr(error.__cause__, "sqlstate", getattr(error.__cause__, "pgcode", None)) == _UNDEFINED_TABLE

    def listen(self) -> PostgresListener | None:
        """Return what hears that other machines enqueued, or None where the server does not take LISTEN."""
        return PostgresListener.open(self.alias)

    def wake_workers(self) -> bool:
        """Wake the workers of this machine; if there are none, those of others."""
        if super().wake_workers():
            return True
        # After the commit, on its own: inside a transaction NOTIFY takes a lock that makes commits wait in line.
        with suppress(Error), connections[self.alias].cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")
        return False
