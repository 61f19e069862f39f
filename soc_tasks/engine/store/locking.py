"""What PostgreSQL, MySQL and MariaDB share: rows are locked one by one, and those that others lock are passed over.

The engine's transactions are READ COMMITTED: what a statement sees after it waited for a lock is what is there, not
what was there when the transaction began.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from django.db import connections
from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.clock import Clock, DatabaseClock
from soc_tasks.engine.rates import Share
from soc_tasks.engine.store.base import NO_CARE
from soc_tasks.engine.store.conflicts import retried
from soc_tasks.engine.store.enqueue import EnqueueStore
from soc_tasks.engine.store.rows import QUEUES, TASKS, State
from soc_tasks.errors import NotSupportedError

#: Rows of one queue that a claim locks; what is not taken is free again as soon as it commits.
DUE: Final = (
    f"FROM {TASKS} WHERE queue = %s AND state = {State.WAITING:d} AND due <= %s"
    " ORDER BY due, id LIMIT %s FOR UPDATE SKIP LOCKED"
)


class LockingStore(EnqueueStore):
    """Keeps tasks in a database that locks rows."""

    def __init__(self, alias: str, clock: Clock | None = None) -> None:
        super().__init__(alias, clock or DatabaseClock(self.read_time))

    @abstractmethod
    def read_time(self) -> int:
        """Return the database's time in microseconds since the epoch."""

    @abstractmethod
    def read_committed(self, cursor: CursorWrapper | None) -> None:
        """Make the transaction that begins READ COMMITTED, if it is not: called before it begins, and then in it."""

    @contextmanager
    def writing(self, quiet: AbstractContextManager[None] = NO_CARE) -> Iterator[CursorWrapper]:
        """Open a READ COMMITTED transaction, and yield a cursor."""
        connection = connections[self.alias]
        # Part of somebody's transaction, it is what that is; without autocommit one may be open already.
        own = not connection.in_atomic_block and connection.get_autocommit()
        if own:
            self.read_committed(None)
        with super().writing(quiet) as cursor:
            if own:
                self.read_committed(cursor)
            yield cursor

    def is_ready(self) -> bool:
        """Tell whether the tables are there.

        Raises:
            NotSupportedError: the database is too old.
        """
        connection = connections[self.alias]
        if not connection.features.has_select_for_update_skip_locked:
            raise NotSupportedError(
                f"The database {self.alias!r} knows no SKIP LOCKED; the embedded engine needs PostgreSQL 14, "
                "MySQL 8.0.1 or MariaDB 10.6, or a newer one."
            )
        return super().is_ready()

    def lock_queues(self, cursor: CursorWrapper, names: Collection[str]) -> Collection[str]:
        """Lock the rows of queues with limits, and return those that nobody else claims from at this moment."""
        marks = ", ".join(["%s"] * len(names))
        lock = f"SELECT name FROM {QUEUES} WHERE name IN ({marks}) FOR UPDATE SKIP LOCKED"
        locked = {name for (name,) in self.fetch(cursor, lock, tuple(names))}
        if missing := set(names) - locked:
            marks = ", ".join(["%s"] * len(missing))
            there = self.fetch(cursor, f"SELECT name FROM {QUEUES} WHERE name IN ({marks})", tuple(missing))
            new = sorted(missing - {name for (name,) in there})
            locked.update(name for name in new if self.make_queue(cursor, name))
        return locked

    def delete_done(self, cursor: CursorWrapper, keys: Sequence[tuple[int, int | None]]) -> None:
        """Delete rows with one statement for each owner: each statement is a way to the server and back."""
        owners: dict[int | None, list[int]] = {}
        for row, owner in keys:
            owners.setdefault(owner, []).append(row)
        for owner, rows in owners.items():
            marks = ", ".join(["%s"] * len(rows))
            cursor.execute(f"DELETE FROM {TASKS} WHERE owner = %s AND id IN ({marks})", (owner, *rows))

    @staticmethod
    def portions(shares: Sequence[Share], limit: int) -> list[int]:
        """Return how many rows of each share to lock: a fair part twice over, and no more than may be had."""
        fair = limit if len(shares) == 1 else 2 * -(-limit // len(shares))
        return [min(share.most, fair) for share in shares]

    # All that these do they do in transactions of their own.
    add = retried(EnqueueStore.add)
    accept = retried(EnqueueStore.accept)
    join = retried(EnqueueStore.join)
    leave = retried(EnqueueStore.leave)
    beat = retried(EnqueueStore.beat)
    reclaim = retried(EnqueueStore.reclaim)
    exchange = retried(EnqueueStore.exchange)
    claim_suspect = retried(EnqueueStore.claim_suspect)
    release_unknown = retried(EnqueueStore.release_unknown)
    run_now = retried(EnqueueStore.run_now)
    delete = retried(EnqueueStore.delete)
    set_paused = retried(EnqueueStore.set_paused)
    purge = retried(EnqueueStore.purge)
    sweep = retried(EnqueueStore.sweep)
    shift_clock = retried(EnqueueStore.shift_clock)
