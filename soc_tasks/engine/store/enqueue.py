"""Enqueueing: rows are inserted where their names are free, in the caller's transaction if it has one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from django.db import DatabaseError, Error, connections, transaction
from django.db.backends.utils import CursorWrapper

from soc_tasks.conf import get_settings
from soc_tasks.engine.store.console import NAME_BATCH, ConsoleStore
from soc_tasks.engine.store.rows import GIVEN, TASKS, State, with_new_key, write_task
from soc_tasks.engine.wakeup import wake
from soc_tasks.errors import BackendUnavailableError, TaskAlreadyExistsError
from soc_tasks.values import Task

#: Rows of one INSERT; SQLite takes 32,766 parameters at most.
INSERT_BATCH: Final = 500
#: Bytes of bodies in one INSERT; MariaDB takes 16 MiB at most unless told otherwise, and binary text doubles at worst.
INSERT_BYTES: Final = 4 * 2**20

#: What follows the verb of an INSERT of tasks.
INTO: Final = f"INTO {TASKS} ({', '.join(GIVEN)})"

_BODY: Final = list(GIVEN).index("body")
_ROW = f"({', '.join(['%s'] * len(GIVEN))})"
_DROP_FREE = (
    f"DELETE FROM {TASKS} WHERE queue = %s AND name = %s AND keyed = 0 AND state = {State.ENDED:d} AND due <= %s"
)


def explain_taken(tasks: Sequence[Task]) -> str:
    """Return what to tell whoever chose the names of tasks that are taken, and how long they stay so."""
    names = ", ".join(f"{task.name!r} in queue {task.queue!r}" for task in tasks[:5])
    return (
        f"These names exist already, or existed a short while ago: {names}. A name stays taken until its task "
        f"has ended, and for {get_settings().tombstone_seconds:,.0f} s after that (SOC_TASKS['TOMBSTONE_SECONDS'])."
    )


class EnqueueStore(ConsoleStore):
    """The part of a store that takes new tasks."""

    @abstractmethod
    def missing_table(self, error: DatabaseError) -> bool:
        """Tell whether an error says that a table is missing."""

    def add(self, tasks: Sequence[Task], now: int | None = None) -> None:
        """Keep new tasks, all or none."""
        rows, connection = self._write(tasks, now), connections[self.alias]
        try:
            if not self._insert_all(rows, connection):
                # A name may be taken by one that is free again and was not swept yet; a key, once in ages, by another.
                free = self.clock.now()
                with self.cursor() as cursor:
                    cursor.executemany(_DROP_FREE, [(task.queue, task.name, free) for task in tasks])
                    rows = self._move_aside(cursor, rows)
                if not self._insert_all(rows, connection):
                    raise TaskAlreadyExistsError(self._explain(tasks))
        except Error as error:
            raise self._unavailable(error) from error
        self._wake_after(connection)

    def accept(self, tasks: Sequence[Task]) -> int:
        """Keep those of `tasks` whose names are free."""
        now = self.clock.now()
        try:
            with transaction.atomic(using=self.alias), self.cursor() as cursor:
                if named := [(task.queue, task.name, now) for task in tasks if task.named]:
                    cursor.executemany(_DROP_FREE, named)
                # By their names at first: a row whose key another had when it came stands under one of its own.
                there = self.find_names(cursor, tasks)
                rows = self._write([task for task in tasks if (task.queue, task.name) not in there])
                count = self._insert_new(cursor, rows)
                if count < len(rows):
                    # All of them again, those are passed over that stand there: who had a key may be gone by now.
                    count += self._insert_new(cursor, self._move_aside(cursor, rows))
        except Error as error:
            raise self._unavailable(error) from error
        self.wake_on_commit()
        return count

    def find_taken(self, tasks: Sequence[Task]) -> list[Task]:
        """Return those of `tasks` whose chosen names are taken."""
        try:
            return super().find_taken(tasks)
        except Error as error:
            raise self._unavailable(error) from error

    def _write(self, tasks: Sequence[Task], now: int | None = None) -> list[tuple[Any, ...]]:
        now = self.clock.now() if now is None else now
        return [write_task(task, now) for task in tasks]

    def _insert_all(self, rows: list[tuple[Any, ...]], connection: Any) -> bool:
        """Insert `rows`, or nothing where a name is taken, without an error that would break the transaction."""
        if len(rows) == 1:
            return self.insert_one(connection, rows[0]) == 1
        try:
            with transaction.atomic(using=self.alias), self.cursor() as cursor:
                if self._insert_new(cursor, rows) < len(rows):
                    raise _NamesTakenError
        except _NamesTakenError:
            return False
        return True

    def _move_aside(self, cursor: CursorWrapper, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return rows with new keys where others have theirs, there or among them."""
        there: dict[int, tuple[str, str]] = {}
        for first in range(0, len(rows), NAME_BATCH):
            keys = [row[0] for row in rows[first : first + NAME_BATCH]]
            sql = f"SELECT id, queue, name FROM {TASKS} WHERE id IN ({', '.join(['%s'] * len(keys))})"
            there.update((key, (queue, name)) for key, queue, name in self.fetch(cursor, sql, keys))
        return [row if there.setdefault(row[0], row[1:3]) == row[1:3] else with_new_key(row) for row in rows]

    def insert_one(self, connection: Any, row: tuple[Any, ...]) -> int:
        """Insert a row where its name is free, by this thread's connection; return how many that were."""
        with connection.cursor() as cursor:
            cursor.execute(self.insert, row)
            return max(0, int(cursor.rowcount))

    def _insert_new(self, cursor: CursorWrapper, rows: list[tuple[Any, ...]]) -> int:
        count = 0
        for part in _portions(rows):
            self.insert_some(cursor, part)
            count += max(0, int(cursor.rowcount))
        return count

    def insert_some(self, cursor: CursorWrapper, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows whose names are free by one statement, which tells how many those were."""
        before, after = self.insert_new
        values = ", ".join([_ROW] * len(rows))
        cursor.execute(f"{before} {INTO} VALUES {values}{after}", [value for row in rows for value in row])

    @cached_property
    def insert(self) -> str:
        """Return the statement that inserts one row."""
        before, after = self.insert_new
        return f"{before} {INTO} VALUES {_ROW}{after}"

    def _explain(self, tasks: Sequence[Task]) -> str:
        taken = self.find_taken(tasks)
        return explain_taken(taken) if taken else "One of these is there already, or a name stands twice among them."

    def _unavailable(self, error: Error) -> BackendUnavailableError:
        message = f"The task could not be written to the database {self.alias!r}: {error}."
        if isinstance(error, DatabaseError) and self.missing_table(error):
            message += f" Its tables are missing: run `manage.py migrate --database {self.alias}`."
        return BackendUnavailableError(message)

    # Waking.

    def wake_workers(self) -> bool:
        """Wake workers that wait on this machine; tell whether there were any."""
        return wake(self.alias)

    def wake_on_commit(self) -> None:
        """Wake the workers once the open transaction has committed."""
        self._wake_after(connections[self.alias])

    def _wake_after(self, connection: Any) -> None:
        if not connection.in_atomic_block:
            self.wake_workers()
            return
        # One call for each transaction, however many tasks it enqueues. A rollback to a savepoint drops the entry
        # together with the tasks that it stands for.
        pending = connection.run_on_commit
        if not pending or pending[-1][1] is not self._wake:
            connection.on_commit(self._wake, robust=True)

    @cached_property
    def _wake(self) -> Any:
        # Kept: a bound method made anew each time would not be known again.
        return self.wake_workers


def _portions(rows: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut rows into what one statement takes, by their number and by the size of their bodies."""
    part: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        if part and (len(part) == INSERT_BATCH or size + len(row[_BODY]) > INSERT_BYTES):
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row[_BODY])
    if part:
        yield part


class _NamesTakenError(Exception):
    """Rolls a partial insert back."""
