"""The store on SQLite: one statement claims (`UPDATE … RETURNING`), transactions take the write lock as they begin."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, Final

from django.db import DatabaseError, connections
from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.rates import Share
from soc_tasks.engine.store.base import NO_CARE
from soc_tasks.engine.store.columns import split
from soc_tasks.engine.store.direct import can_be_direct, writing_directly
from soc_tasks.engine.store.enqueue import INTO, EnqueueStore
from soc_tasks.engine.store.rows import COLUMNS, TASKS, WORKERS, Leased, State, by_due, write_insert
from soc_tasks.engine.store.turns import Turn
from soc_tasks.engine.verdicts import Outcome, Verdict

#: Queues of one claim; SQLite takes 500 parts of a UNION at most.
MOST_SHARES: Final = 100

_DUE = f"FROM {TASKS} WHERE queue = %s AND state = {State.WAITING:d} AND due <= %s ORDER BY due, id LIMIT %s"
# Position in its own queue first: each queue has its turn.
_TURN = f"SELECT * FROM (SELECT id, due, row_number() OVER (ORDER BY due, id) AS turn {_DUE})"
_LEASE = (
    f"UPDATE {TASKS} SET state = {State.RUNNING:d}, owner = %s"
    f" WHERE id IN (%s) AND EXISTS (SELECT 1 FROM {WORKERS} WHERE id = %s) RETURNING {COLUMNS}"
)
_CLAIM_ONE_QUEUE = _LEASE % ("%s", f"SELECT id {_DUE}", "%s")


class SqliteStore(EnqueueStore):
    """Keeps tasks in a SQLite database."""

    @property
    def is_private(self) -> bool:
        """Tell whether the database is in this process's memory."""
        return bool(connections[self.alias].is_in_memory_db())  # type: ignore[attr-defined]

    @cached_property
    def _turn(self) -> Turn:
        if self.is_private:
            return Turn(None)
        database = os.path.realpath(str(connections[self.alias].settings_dict["NAME"]))
        return Turn(f"{database}.soc_tasks-lock", database)

    @contextmanager
    def writing(self, quiet: AbstractContextManager[None] = NO_CARE) -> Iterator[CursorWrapper]:
        """Take this worker's turn, open a transaction that writes, and yield a cursor.

        The write lock is taken as the transaction begins, whatever the site's own transactions do: one that reads
        first fails at once if somebody else commits before it writes.
        """
        connection: Any = connections[self.alias]
        # From begin to end: while another thread has the interpreter, nobody else could have the lock.
        with self._turn, quiet:
            connection.ensure_connection()
            mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
            try:
                with super().writing() as cursor:
                    yield cursor
            finally:
                connection.transaction_mode = mode

    @contextmanager
    def exchanging(self, verdicts: Sequence[Verdict], quiet: AbstractContextManager[None]) -> Iterator[CursorWrapper]:
        """Take this worker's turn in a transaction of the driver's, where nobody else takes part in it."""
        connection: Any = connections[self.alias]
        if any(map(_is_told, verdicts)) or not can_be_direct(connection):
            with self.writing(quiet) as cursor:
                yield cursor
        else:
            with self._turn, writing_directly(connection, quiet) as cursor:
                yield cursor

    def missing_table(self, error: DatabaseError) -> bool:
        """Tell whether an error says that a table is missing."""
        return "no such table" in str(error)

    def insert_one(self, connection: Any, row: tuple[Any, ...]) -> int:
        """Insert a row; straight by the driver where nobody listens to the connection: Django's cursor costs as much.

        In Django's stead it is looked whether this thread may use the connection, and whether a transaction is broken.
        """
        if connection.execute_wrappers or connection.queries_logged:
            return super().insert_one(connection, row)
        if connection.connection is None:
            connection.ensure_connection()
        connection.validate_thread_sharing()
        connection.validate_no_broken_transaction()
        with connection.wrap_database_errors:
            return max(0, int(connection.connection.execute(self._direct_insert, row).rowcount))

    def insert_some(self, cursor: CursorWrapper, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows: one value for columns that are alike in all of them, the others row by row."""
        columns = split(rows)
        # So SQLite calls the columns of VALUES.
        chosen = ", ".join("%s" if place is None else f"column{place + 1}" for place in columns.places)
        row = f"({', '.join(['%s'] * len(columns.lists))})"
        source = f" FROM (VALUES {', '.join([row] * len(rows))})" if columns.lists else ""
        before, after = self.insert_new
        # Without WHERE, ON CONFLICT would be read as the condition of a join.
        cursor.execute(
            f"{before} {INTO} SELECT {chosen}{source} WHERE true{after}",
            [*columns.values, *chain.from_iterable(zip(*columns.lists, strict=True))],
        )

    @cached_property
    def _direct_insert(self) -> str:
        return self.insert.replace("%s", "?")

    def claim(self, cursor: CursorWrapper, worker: int, shares: Sequence[Share], limit: int) -> list[Leased]:
        """Lease up to `limit` tasks."""
        if len(shares) == 1:
            share = shares[0]
            cursor.execute(_CLAIM_ONE_QUEUE, (worker, share.queue, share.until, min(limit, share.most), worker))
        else:
            parts = shares[:MOST_SHARES]
            union = " UNION ALL ".join([_TURN] * len(parts))
            given = [value for share in parts for value in (share.queue, share.until, share.most)]
            cursor.execute(
                _LEASE % ("%s", f"SELECT id FROM ({union}) ORDER BY turn, due LIMIT %s", "%s"),
                (worker, *given, limit, worker),
            )
        leased = [Leased._make(row) for row in cursor.fetchall()]
        # RETURNING keeps no order.
        leased.sort(key=by_due)
        return leased

    def insert_worker(self, cursor: CursorWrapper, values: Mapping[str, Any]) -> int:
        """Insert a worker's row."""
        cursor.execute(write_insert(WORKERS, values), tuple(values.values()))
        return int(cursor.lastrowid)

    def read_change_mark(self) -> object:
        """Return SQLite's count of commits by other connections."""
        connection = connections[self.alias]
        if self.is_private:
            # Connections to one memory share their count.
            return None
        connection.ensure_connection()
        # Asked many times a second by idle workers: straight from the driver.
        with connection.wrap_database_errors:
            return connection.connection.execute("PRAGMA data_version").fetchone()[0]


def _is_told(verdict: Verdict) -> bool:
    """Tell whether others are told of a verdict: they, or the log, may write in the same transaction, by Django."""
    return verdict.outcome in (Outcome.EXHAUSTED, Outcome.UNKNOWN) or verdict.is_overload
