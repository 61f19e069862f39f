"""What a store does in SQL that every database understands; a dialect adds what differs.

Here are verdicts and claims; workers are in leases.py, what people do in console.py.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Final

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from soc_tasks.conf import get_settings
from soc_tasks.engine import hooks
from soc_tasks.engine.caps import TOP_RATE, halve, pace_at
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.rates import AT_ONCE, Share, allot, find_rate, is_limited, next_moment, refill
from soc_tasks.engine.records import QueueView
from soc_tasks.engine.store.base import NO_CARE, SERVED, Queues, Store
from soc_tasks.engine.store.rows import QUEUES, TASKS, Leased, State
from soc_tasks.engine.verdicts import NO_ANSWER, Outcome, Verdict

logger = logging.getLogger("soc_tasks.engine")

#: Seconds after which a task is tried again whose end could not be told.
UNTOLD_DELAY: Final = 60

#: Said once of a task that this site does not know, not at each try.
UNKNOWN_LINE: Final = (
    "this site does not know what task %s of queue %s calls (%s): it waits, for up to a day, for a worker that does"
)

# What a row keeps when only its name matters, and a row in the hands of the worker that had it. Verdicts are written by
# the batch, each by its key; else `_remove` ends rows.
_EMPTIED = f"state = {State.ENDED:d}, owner = NULL, due = %s, path = '', headers = '', body = %s, options = ''"
OWNED = "WHERE id = %s AND owner = %s"

_DELETE = f"DELETE FROM {TASKS} {OWNED}"
_END = f"UPDATE {TASKS} SET {_EMPTIED} {OWNED}"
_RETRY = (
    f"UPDATE {TASKS} SET state = {State.WAITING:d}, owner = NULL, due = %s, attempts = %s, responses = %s,"
    f" first_attempt = %s, status = %s, note = %s, busy = 0, crashes = 0, alone = %s, progress = '', unknown = NULL"
    f" {OWNED}"
)
# A suspect, whether it runs or not, is one still. Given True.
_STILL = f"CASE WHEN alone = %s OR state = {State.SUSPECT:d} THEN {State.SUSPECT:d} ELSE {State.WAITING:d} END"
# A task that ran alone goes back to the suspects: nothing has cleared it. Given True, and False as its new column.
BACK = (
    f"UPDATE {TASKS} SET state = CASE WHEN alone = %s THEN {State.SUSPECT:d} ELSE {State.WAITING:d} END,"
    " owner = NULL, alone = %s"
)
RETURN = f"{BACK} {OWNED}"
_BUSY = f"{BACK}, due = %s, busy = %s, unknown = NULL {OWNED}"
_UNKNOWN = f"{BACK}, due = %s, unknown = %s {OWNED}"

# What is kept of a queue, in the order of QueueView.
_KEPT = ("paused", "tokens", "filled", "cap", "capped", "doubling")

# The queues that have waiting tasks, each found by one step in the index, however many tasks wait.
_SURVEY = f"""
WITH RECURSIVE found(name) AS (
  SELECT min(queue) FROM {TASKS} WHERE state = {State.WAITING:d}
  UNION ALL
  SELECT (SELECT min(queue) FROM {TASKS} WHERE state = {State.WAITING:d} AND queue > found.name)
  FROM found WHERE found.name IS NOT NULL
)
SELECT found.name, (SELECT min(due) FROM {TASKS} WHERE state = {State.WAITING:d} AND queue = found.name),
  {", ".join(f"kept.{column}" for column in _KEPT)}
FROM found LEFT JOIN {QUEUES} kept ON kept.name = found.name WHERE found.name IS NOT NULL
"""
# The limit, more than run anywhere, keeps the inner query apart: else SQLite may read the whole table, queue by queue.
_RUNNING_BY_QUEUE = (
    f"SELECT queue, count(*) FROM (SELECT queue FROM {TASKS} WHERE state = {State.RUNNING:d} LIMIT 1000000) AS running"
    " GROUP BY queue"
)


class SqlStore(Store):
    """A store by hand-written SQL through Django's connection."""

    #: What stands around the table, columns and values of an INSERT that passes over names that are taken.
    insert_new: ClassVar[tuple[str, str]] = ("INSERT", " ON CONFLICT DO NOTHING")
    insert_new_queue: ClassVar[tuple[str, str]] = ("INSERT", " ON CONFLICT (name) DO NOTHING")

    @contextmanager
    def writing(self, quiet: AbstractContextManager[None] = NO_CARE) -> Iterator[CursorWrapper]:
        """Open a transaction that writes, and yield a cursor; `quiet` as for `exchange`."""
        with transaction.atomic(using=self.alias), self.cursor() as cursor, quiet:
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
        each: int | None = None,
    ) -> list[Leased]:
        """Write verdicts down and claim due tasks, in one transaction."""
        with self.exchanging(verdicts, quiet) as cursor:
            if verdicts:
                self._settle(cursor, verdicts)
            return self._claim_due(cursor, worker, limit, queues, each) if limit > 0 else []

    def exchanging(
        self, verdicts: Sequence[Verdict], quiet: AbstractContextManager[None]
    ) -> AbstractContextManager[CursorWrapper]:
        """Return the transaction of an exchange."""
        return self.writing(quiet)

    def _settle(self, cursor: CursorWrapper, verdicts: Sequence[Verdict]) -> None:
        deleted, ended, retried, busy, unknown, returned = [], [], [], [], [], []
        refused: dict[str, list[float]] = {}
        free_from = self._free_from()
        for verdict in verdicts:
            leased, outcome = verdict.leased, verdict.outcome
            key = (leased.id, leased.owner)
            if outcome is Outcome.DONE:
                if leased.named:
                    ended.append((free_from, b"", *key))
                else:
                    deleted.append(key)
                continue
            if verdict.is_overload:
                refused.setdefault(leased.queue, []).append(verdict.seconds)
            if outcome is Outcome.RETRY:
                counts = (verdict.due, verdict.attempts, verdict.responses, verdict.first_attempt, verdict.status)
                retried.append((*counts, verdict.note, False, *key))
            elif outcome is Outcome.BUSY:
                busy.append((True, False, verdict.due, verdict.busy, *key))
            elif outcome is Outcome.UNKNOWN:
                unknown.append((True, False, verdict.due, verdict.unknown, *key))
                if leased.unknown is None:
                    logger.warning(UNKNOWN_LINE, leased.name, leased.queue, leased.path)
            elif outcome is Outcome.RETURNED:
                returned.append((True, False, *key))
            else:
                self._exhaust(cursor, leased, verdict.attempts, verdict.status or NO_ANSWER)
        if deleted:
            self.delete_done(cursor, deleted)
        for sql, rows in (
            (_END, ended),
            (_RETRY, retried),
            (_BUSY, busy),
            (_UNKNOWN, unknown),
            (RETURN, returned),
        ):
            if rows:
                cursor.executemany(sql, rows)
        if refused:
            self._slow_down(cursor, refused)

    def delete_done(self, cursor: CursorWrapper, keys: Sequence[tuple[int, int | None]]) -> None:
        """Delete rows by id and owner: most of what a worker writes."""
        cursor.executemany(_DELETE, keys)

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
                # What the server's clients queue ends without a word, as in Cloud Tasks (v2, RetryConfig).
                if SERVED not in leased.queue:
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
            # Only an answer clears a suspect.
            state, given = (_STILL, (True,)) if status <= NO_ANSWER else (f"{State.WAITING:d}", ())
            again = f"UPDATE {TASKS} SET state = {state}, owner = NULL, alone = %s, due = %s WHERE {where}"
            cursor.execute(again, (*given, False, due, *key))
            return False
        return True

    # Claims.

    def lock_queues(self, cursor: CursorWrapper, names: Collection[str]) -> Collection[str]:
        """Lock the rows of queues with limits until the transaction ends; return those that may be claimed from.

        What is read of a queue after this, in a statement of its own, includes what others claimed from it: limits
        hold across all workers. Where a database has one writer at a time there is nothing to do; elsewhere rows that
        are missing are made, and queues that others have locked are left out rather than waited for.

        Args:
            cursor: a cursor in the open transaction.
            names: the queues.
        """
        return names

    def survey(self, cursor: CursorWrapper) -> list[Sequence[Any]]:
        """Return each queue that has waiting tasks, when the first of them is due, and what is kept of the queue."""
        return list(self.fetch(cursor, _SURVEY, ()))

    def _views(self, cursor: CursorWrapper, queues: Queues) -> list[QueueView]:
        return [
            _view(name, due, kept)
            for name, due, *kept in self.survey(cursor)
            # A queue may have emptied between the two halves of the query, on databases without snapshots.
            if due is not None and self.means(name, queues)
        ]

    def _claim_due(
        self, cursor: CursorWrapper, worker: int, limit: int, queues: Queues, each: int | None
    ) -> list[Leased]:
        views, options, now = self._views(cursor, queues), self.options(), self.clock.now()
        limited = [view for view in views if is_limited(view, options) and view.due <= now and not view.paused]
        if limited:
            return self._claim_limited(cursor, worker, limit, views, limited, each)
        shares = allot(views, limit, now, options, {}, each)
        return self.claim(cursor, worker, shares, limit) if shares else []

    def _claim_limited(
        self,
        cursor: CursorWrapper,
        worker: int,
        limit: int,
        views: list[QueueView],
        limited: list[QueueView],
        each: int | None,
    ) -> list[Leased]:
        """Claim where some queues have limits, and keep what their buckets hold then."""
        options, now = self.options(), self.clock.now()
        locked = self.lock_queues(cursor, [view.name for view in limited])
        kept = self.read_queues(cursor, locked)
        before = {view.name: _view(view.name, view.due, kept.get(view.name, ())) for view in limited}
        # Who claims from a queue at this moment looks after it; what is to run at once is not part of its limits.
        fresh = {
            name: refill(view, options, now) if name in locked else view._replace(paused=True)
            for name, view in before.items()
        }
        running = self._count_running(cursor)
        shares = allot([fresh.get(view.name, view) for view in views], limit, now, options, running, each)
        leased = self.claim(cursor, worker, shares, limit) if shares else []
        taken = Counter(task.queue for task in leased if task.due > AT_ONCE)
        for name in locked:
            old, new = before[name], fresh[name]
            if find_rate(old, options) is None:
                continue
            # Where the clock was set back the bucket is dated back too, or it would not fill for as long.
            if taken[name] or old.filled > now or (old.cap is not None and new.cap is None):
                self._keep_view(cursor, new._replace(tokens=max(0.0, new.tokens - taken[name])))
        return leased

    def _slow_down(self, cursor: CursorWrapper, refused: Mapping[str, Sequence[float]]) -> None:
        """Halve the pace of queues whose target says that it is overloaded; given how long the refused tasks took."""
        options, now = self.options(), self.clock.now()
        # Where somebody else has the queue, the next refusal will do.
        locked = self.lock_queues(cursor, sorted(refused))
        kept = self.read_queues(cursor, locked)
        running = self._count_running(cursor)
        for name in locked:
            view = _view(name, now, kept.get(name, ()))
            rate = find_rate(view, options) or TOP_RATE
            under_way = running.get(name, 0) + len(refused[name])
            halved = halve(view, rate, now, under_way, min(refused[name]))
            if halved is None:
                continue
            self._keep_view(cursor, halved)
            if view.cap is None:
                logger.warning(
                    "queue %s goes at %.3g tasks a second for a while: its target is overloaded (503 or 429)",
                    name,
                    halved.cap,
                )

    def find_paces(self) -> dict[str, float]:
        """Return the tasks a second of the queues that are held below their rate now."""
        options, now = self.options(), self.clock.now()
        rows = self.select(f"SELECT name, {', '.join(_KEPT)} FROM {QUEUES} WHERE cap IS NOT NULL")
        views = [_view(name, now, kept) for name, *kept in rows]
        rates = {view.name: find_rate(view, options) or TOP_RATE for view in views}
        paces = {view.name: pace_at(view, rates[view.name], now) for view in views}
        return {name: pace for name, pace in paces.items() if pace < rates[name]}

    def read_queues(self, cursor: CursorWrapper, names: Collection[str]) -> dict[str, Sequence[Any]]:
        """Return what is kept of queues, of those that have a row."""
        if not names:
            return {}
        marks = ", ".join(["%s"] * len(names))
        sql = f"SELECT name, {', '.join(_KEPT)} FROM {QUEUES} WHERE name IN ({marks})"
        return {name: kept for name, *kept in self.fetch(cursor, sql, tuple(names))}

    def _keep_view(self, cursor: CursorWrapper, view: QueueView) -> None:
        """Write what a queue's bucket holds, and its cap."""
        values = {name: getattr(view, name) for name in _KEPT if name != "paused"}
        self._keep(cursor, view.name, **values)

    def _keep(self, cursor: CursorWrapper, queue: str, **values: Any) -> None:
        """Write columns of a queue's row."""
        changes = ", ".join(f"{name} = %s" for name in values)
        update = f"UPDATE {QUEUES} SET {changes} WHERE name = %s"
        cursor.execute(update, (*values.values(), queue))
        if cursor.rowcount == 0:
            self.make_queue(cursor, queue)
            cursor.execute(update, (*values.values(), queue))

    def make_queue(self, cursor: CursorWrapper, queue: str) -> bool:
        """Make the row of a queue, unless somebody else has; tell whether this did."""
        before, after = self.insert_new_queue
        cursor.execute(f"{before} INTO {QUEUES} (name) VALUES (%s){after}", (queue,))
        return bool(cursor.rowcount == 1)

    def next_due(self, queues: Queues = None) -> int | None:
        """Return when something may be claimed next."""
        with self.cursor() as cursor:
            views, options = self._views(cursor, queues), self.options()
            running = self._count_running(cursor) if any(is_limited(view, options) for view in views) else {}
            return next_moment(views, self.clock.now(), options, running)

    @staticmethod
    def _count_running(cursor: CursorWrapper) -> dict[str, int]:
        cursor.execute(_RUNNING_BY_QUEUE)
        return dict(cursor.fetchall())


def _view(name: str, due: int, kept: Sequence[Any]) -> QueueView:
    """Return the view of a queue from its row; one that has none yet gives nothing, or NULLs."""
    if not kept or kept[0] is None:
        return QueueView(name, due)
    paused, *rest = kept
    return QueueView(name, due, bool(paused), *rest)
