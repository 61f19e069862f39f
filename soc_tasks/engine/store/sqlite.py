"""The store on SQLite: one statement claims (`UPDATE … RETURNING`), transactions take the write lock as they begin."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

from django.db import DatabaseError, connections, transaction
from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.rates import Share
from soc_tasks.engine.store.console import ConsoleStore
from soc_tasks.engine.store.rows import COLUMNS, GIVEN, TASKS, WORKERS, Leased, State, write_task
from soc_tasks.engine.store.turns import Turn
from soc_tasks.engine.wakeup import wake
from soc_tasks.errors import BackendUnavailableError, TaskAlreadyExistsError
from soc_tasks.values import Task

#: Rows of one INSERT; SQLite takes 32,766 parameters at most.
INSERT_BATCH: Final = 500
#: Queues of one claim; SQLite takes 500 parts of a UNION at most.
MOST_SHARES: Final = 100

_ROW = f"({', '.join(['%s'] * len(GIVEN))})"
_INSERT = f"INSERT INTO {TASKS} ({', '.join(GIVEN)}) VALUES "
_NEW_ONLY = " ON CONFLICT (queue, name) DO NOTHING"
_INSERT_ONE = _INSERT + _ROW + _NEW_ONLY
_DROP_FREE = f"DELETE FROM {TASKS} WHERE queue = %s AND name = %s AND state = {State.ENDED:d} AND due <= %s"

_DUE = f"FROM {TASKS} WHERE queue = %s AND state = {State.WAITING:d} AND due <= %s ORDER BY due, id LIMIT %s"
# Position in its own queue first: each queue has its turn.
_TURN = f"SELECT * FROM (SELECT id, due, row_number() OVER (ORDER BY due, id) AS turn {_DUE})"
_LEASE = (
    f"UPDATE {TASKS} SET state = {State.RUNNING:d}, owner = %s"
    f" WHERE id IN (%s) AND EXISTS (SELECT 1 FROM {WORKERS} WHERE id = %s) RETURNING {COLUMNS}"
)
_CLAIM_ONE_QUEUE = _LEASE % ("%s", f"SELECT id {_DUE}", "%s")


class SqliteStore(ConsoleStore):
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
    def writing(self) -> Iterator[CursorWrapper]:
        """Take this worker's turn, open a transaction that writes, and yield a cursor.

        The write lock is taken as the transaction begins, whatever the site's own transactions do: one that reads
        first fails at once if somebody else commits before it writes.
        """
        connection: Any = connections[self.alias]
        with self._turn:
            connection.ensure_connection()
            mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
            try:
                with super().writing() as cursor:
                    yield cursor
            finally:
                connection.transaction_mode = mode

    def add(self, tasks: Sequence[Task]) -> None:
        """Keep new tasks, all or none."""
        rows = self._write(tasks)
        try:
            if not self._insert_all(rows):
                # A name may be taken by one that is free again and was not swept yet.
                now = self.clock.now()
                with self.cursor() as cursor:
                    cursor.executemany(_DROP_FREE, [(task.queue, task.name, now) for task in tasks])
                if not self._insert_all(rows):
                    raise TaskAlreadyExistsError(self._explain(tasks))
        except DatabaseError as error:
            raise self._unavailable(error) from error
        self.wake_on_commit()

    def accept(self, tasks: Sequence[Task]) -> int:
        """Keep those of `tasks` whose names are free."""
        rows, now = self._write(tasks), self.clock.now()
        try:
            with transaction.atomic(using=self.alias), self.cursor() as cursor:
                if named := [(task.queue, task.name, now) for task in tasks if task.named]:
                    cursor.executemany(_DROP_FREE, named)
                count = self._insert_new(cursor, rows)
        except DatabaseError as error:
            raise self._unavailable(error) from error
        self.wake_on_commit()
        return count

    def _write(self, tasks: Sequence[Task]) -> list[tuple[Any, ...]]:
        now = self.clock.now()
        return [write_task(task, now) for task in tasks]

    def _insert_all(self, rows: list[tuple[Any, ...]]) -> bool:
        """Insert `rows`, or nothing where a name is taken, without an error that would break the transaction."""
        if len(rows) == 1:
            with self.cursor() as cursor:
                cursor.execute(_INSERT_ONE, rows[0])
                return bool(cursor.rowcount == 1)
        try:
            with transaction.atomic(using=self.alias), self.cursor() as cursor:
                if self._insert_new(cursor, rows) < len(rows):
                    raise _NamesTakenError
        except _NamesTakenError:
            return False
        return True

    @staticmethod
    def _insert_new(cursor: CursorWrapper, rows: list[tuple[Any, ...]]) -> int:
        count = 0
        for start in range(0, len(rows), INSERT_BATCH):
            part = rows[start : start + INSERT_BATCH]
            cursor.execute(
                _INSERT + ", ".join([_ROW] * len(part)) + _NEW_ONLY, [value for row in part for value in row]
            )
            count += cursor.rowcount
        return count

    def _explain(self, tasks: Sequence[Task]) -> str:
        taken = self.find_taken(tasks)
        names = ", ".join(f"{task.name!r} in queue {task.queue!r}" for task in taken[:5])
        return (
            f"These names exist already, or existed a short while ago: {names}."
            if names
            else "A name stands twice among these tasks."
        )

    def _unavailable(self, error: DatabaseError) -> BackendUnavailableError:
        message = f"The task could not be written to the database {self.alias!r}: {error}."
        if "no such table" in str(error):
            message += f" Its tables are missing: run `manage.py migrate --database {self.alias}`."
        return BackendUnavailableError(message)

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
        leased.sort(key=_by_due)
        return leased

    def insert_worker(self, cursor: CursorWrapper, values: tuple[Any, ...]) -> int:
        """Insert a worker's row."""
        cursor.execute(
            f"INSERT INTO {WORKERS} (host, pid, born, started, heartbeat) VALUES (%s, %s, %s, %s, %s)", values
        )
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

    def wake_on_commit(self) -> None:
        """Wake the workers once the open transaction has committed."""
        connection = connections[self.alias]
        if not connection.in_atomic_block:
            wake(self.alias)
            return
        # One call for each transaction, however many tasks it enqueues. A rollback to a savepoint drops the entry
        # together with the tasks that it stands for.
        pending = connection.run_on_commit
        if not pending or pending[-1][1] is not self._wake:
            connection.on_commit(self._wake, robust=True)

    @cached_property
    def _wake(self) -> Any:
        alias = self.alias
        return lambda: wake(alias)


class _NamesTakenError(Exception):
    """Rolls a partial insert back."""


def _by_due(leased: Leased) -> tuple[int, int]:
    return (leased.due, leased.id)
