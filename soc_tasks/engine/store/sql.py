"""What a store does in SQL that every database understands; a dialect adds what differs.

Here are verdicts and claims; workers are in leases.py, what people do in console.py.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from soc_tasks.conf import get_queues, get_settings
from soc_tasks.engine import hooks
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.rates import Share, allot, is_limited, next_moment, refill
from soc_tasks.engine.records import QueueView
from soc_tasks.engine.store.base import NO_CARE, Queues, Store
from soc_tasks.engine.store.rows import QUEUES, TASKS, Leased, State
from soc_tasks.engine.verdicts import NO_ANSWER, Outcome, Verdict

logger = logging.getLogger("soc_tasks.engine")

#: Seconds after which a task is tried again whose end could not be told.
UNTOLD_DELAY: Final = 60

# What a row keeps when only its name matters, and a row in the hands of the worker that had it. Verdicts are written by
# the batch, each by its key; else `_remove` ends rows.
_EMPTIED = f"state = {State.ENDED:d}, owner = NULL, due = %s, path = '', headers = '', body = %s, options = ''"
OWNED = "WHERE id = %s AND owner = %s"

_DELETE = f"DELETE FROM {TASKS} {OWNED}"
_END = f"UPDATE {TASKS} SET {_EMPTIED} {OWNED}"
_RETRY = (
    f"UPDATE {TASKS} SET state = {State.WAITING:d}, owner = NULL, due = %s, attempts = %s, responses = %s,"
    f" first_attempt = %s, status = %s, busy = 0, crashes = 0, alone = %s, progress = '' {OWNED}"
)
# A task that ran alone goes back to the suspects: nothing has cleared it. Given True, and False as its new column.
BACK = (
    f"UPDATE {TASKS} SET state = CASE WHEN alone = %s THEN {State.SUSPECT:d} ELSE {State.WAITING:d} END,"
    " owner = NULL, alone = %s"
)
RETURN = f"{BACK} {OWNED}"
_BUSY = f"{BACK}, due = %s, busy = %s {OWNED}"

# The queues that have waiting tasks, each found by one step in the index, however many tasks wait.
_SURVEY = f"""
WITH RECURSIVE found(name) AS (
  SELECT min(queue) FROM {TASKS} WHERE state = {State.WAITING:d}
  UNION ALL
  SELECT (SELECT min(queue) FROM {TASKS} WHERE state = {State.WAITING:d} AND queue > found.name)
  FROM found WHERE found.name IS NOT NULL
)
SELECT found.name, (SELECT min(due) FROM {TASKS} WHERE state = {State.WAITING:d} AND queue = found.name),
  kept.paused, kept.tokens, kept.filled
FROM found LEFT JOIN {QUEUES} kept ON kept.name = found.name WHERE found.name IS NOT NULL
"""
_RUNNING_BY_QUEUE = f"SELECT queue, count(*) FROM {TASKS} WHERE state = {State.RUNNING:d} GROUP BY queue"


class SqlStore(Store):
    """A store by hand-written SQL through Django's connection."""

    @contextmanager
    def writing(self) -> Iterator[CursorWrapper]:
        """Open a transaction that writes, and yield a cursor."""
        with transaction.atomic(using=self.alias), self.cursor() as cursor:
            yield cursor

    def cursor(self) -> CursorWrapper:
        """Return a cursor of this thread's connection."""
        cursor: CursorWrapper = connections[self.alias].cursor()
        return cursor

    def select(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query by itself."""
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    @staticmethod
    def fetch(cursor: CursorWrapper, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query in the open transaction."""
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())

    @abstractmethod
    def wake_on_commit(self) -> None:
        """Wake the workers once the open transaction has committed, or at once where there is none."""

    @abstractmethod
    def claim(self, cursor: CursorWrapper, worker: int, shares: Sequence[Share], limit: int) -> list[Leased]:
        """Lease up to `limit` tasks to a worker that is not struck off: a turn for each share, oldest first."""

    # Verdicts.

    def exchange(
        self,
        worker: int,
        verdicts: Sequence[Verdict],
        limit: int,
        queues: Queues = None,
        quiet: AbstractContextManager[None] = NO_CARE,
    ) -> list[Leased]:
        """Write verdicts down and claim due tasks, in one transaction."""
        with self.writing() as cursor, quiet:
            if verdicts:
                self._settle(cursor, verdicts)
            return self._claim_due(cursor, worker, limit, queues) if limit > 0 else []

    def _settle(self, cursor: CursorWrapper, verdicts: Sequence[Verdict]) -> None:
        deleted, ended, retried, busy, returned = [], [], [], [], []
        free_from = self._free_from()
        for verdict in verdicts:
            leased, outcome = verdict.leased, verdict.outcome
            key = (leased.id, leased.owner)
            if outcome is Outcome.DONE:
                if leased.named:
                    ended.append((free_from, b"", *key))
                else:
                    deleted.append(key)
            elif outcome is Outcome.RETRY:
                # responses, first_attempt, … stand in the statement in the order of Verdict's fields.
                retried.append((*verdict[2:-1], False, *key))
            elif outcome is Outcome.BUSY:
                busy.append((True, False, verdict.due, verdict.busy, *key))
            elif outcome is Outcome.RETURNED:
                returned.append((True, False, *key))
            else:
                self._exhaust(cursor, leased, verdict.attempts, verdict.status or NO_ANSWER)
        for sql, rows in ((_DELETE, deleted), (_END, ended), (_RETRY, retried), (_BUSY, busy), (RETURN, returned)):
            if rows:
                cursor.executemany(sql, rows)

    def _free_from(self) -> int:
        """Return when a name that ends now is free again."""
        return self.clock.now() + round(get_settings().tombstone_seconds * SECOND)

    def _remove(self, cursor: CursorWrapper, where: str, parameters: Sequence[Any]) -> int:
        """Delete tasks; chosen names stay taken for a while."""
        cursor.execute(
            f"UPDATE {TASKS} SET {_EMPTIED} WHERE {where} AND named = %s", (self._free_from(), b"", *parameters, True)
        )
        kept = max(0, int(cursor.rowcount))
        cursor.execute(f"DELETE FROM {TASKS} WHERE {where} AND named = %s", (*parameters, False))
        return kept + max(0, int(cursor.rowcount))

    def _exhaust(self, cursor: CursorWrapper, leased: Leased, attempts: int, status: int) -> bool:
        """End a task for good and tell of it, if the row is still in the same hands."""
        if leased.owner is None:
            # Another process may have ended it since it was read.
            where, key = f"id = %s AND owner IS NULL AND state <> {State.ENDED:d}", (leased.id,)
        else:
            where, key = "id = %s AND owner = %s", (leased.id, leased.owner)  # type: ignore[assignment]
        try:
            # A savepoint: whoever is told may fail without taking the other verdicts along.
            with transaction.atomic(using=self.alias):
                if not self._remove(cursor, where, key):
                    return False
                hooks.tell_exhausted(leased.to_task(), attempts, status)
        except Exception:
            logger.exception(
                "task %s of queue %s failed for the last time, and what should be done about it failed as well; "
                "it is tried again in %d seconds",
                leased.name,
                leased.queue,
                UNTOLD_DELAY,
            )
            due = self.clock.now() + UNTOLD_DELAY * SECOND
            again = f"UPDATE {TASKS} SET state = {State.WAITING:d}, owner = NULL, alone = %s, due = %s WHERE {where}"
            cursor.execute(again, (False, due, *key))
            return False
        return True

    # Claims.

    def _views(self, cursor: CursorWrapper, queues: Queues) -> list[QueueView]:
        cursor.execute(_SURVEY)
        return [
            QueueView(name, due, bool(paused), tokens or 0.0, filled or 0)
            for name, due, paused, tokens, filled in cursor.fetchall()
            # A queue may have emptied between the two halves of the query, on databases without snapshots.
            if due is not None and (queues is None or name in queues)
        ]

    def _claim_due(self, cursor: CursorWrapper, worker: int, limit: int, queues: Queues) -> list[Leased]:
        views, options, now = self._views(cursor, queues), get_queues(), self.clock.now()
        limited = [view for view in views if is_limited(view.name, options)]
        running = self._count_running(cursor) if limited else {}
        shares = allot(views, limit, now, options, running)
        leased = self.claim(cursor, worker, shares, limit) if shares else []
        for view in limited:
            rate = options[view.name].rate_per_second
            taken = sum(task.queue == view.name for task in leased)
            # Where the clock was set back the bucket is dated back too, or it would not fill for as long.
            if rate is not None and (taken or view.filled > now):
                # What ran past the rate is taken from the bucket as well, but never below empty.
                self._keep(cursor, view.name, tokens=max(0.0, refill(view, rate, now) - taken), filled=now)
        return leased

    def _keep(self, cursor: CursorWrapper, queue: str, **values: Any) -> None:
        """Write columns of a queue's row."""
        changes = ", ".join(f"{name} = %s" for name in values)
        cursor.execute(f"UPDATE {QUEUES} SET {changes} WHERE name = %s", (*values.values(), queue))
        if cursor.rowcount == 0:
            names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
            cursor.execute(f"INSERT INTO {QUEUES} (name, {names}) VALUES (%s, {marks})", (queue, *values.values()))

    def next_due(self, queues: Queues = None) -> int | None:
        """Return when something may be claimed next."""
        with self.cursor() as cursor:
            views, options = self._views(cursor, queues), get_queues()
            running = self._count_running(cursor) if any(is_limited(view.name, options) for view in views) else {}
            return next_moment(views, self.clock.now(), options, running)

    @staticmethod
    def _count_running(cursor: CursorWrapper) -> dict[str, int]:
        cursor.execute(_RUNNING_BY_QUEUE)
        return dict(cursor.fetchall())
