"""What a store does in SQL that every database understands; a dialect adds what differs.

A dialect writes `insert_new`, `claim` and `read_change_mark`, and may override `writing`.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from soc_tasks.conf import get_queues, get_settings
from soc_tasks.engine import hooks
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.rates import Share, allot, is_limited, next_moment, refill
from soc_tasks.engine.records import QueueView, WorkerRecord
from soc_tasks.engine.store.base import NO_CARE, Queues, Store
from soc_tasks.engine.store.rows import COLUMNS, QUEUES, TASKS, WORKERS, Leased, State
from soc_tasks.engine.verdicts import NO_ANSWER, Outcome, Verdict

logger = logging.getLogger("soc_tasks.engine")

#: Seconds after which a task is tried again whose end could not be told.
UNTOLD_DELAY: Final = 60
#: A task that was alone in its process when that died for this many times is given up.
MOST_CRASHES: Final = 3

# All that a row keeps when only its name matters.
EMPTIED = f"state = {State.ENDED:d}, owner = NULL, due = %s, path = '', headers = '', body = %s, options = ''"
_OWNED = "WHERE id = %s AND owner = %s"

_DELETE = f"DELETE FROM {TASKS} {_OWNED}"
_END = f"UPDATE {TASKS} SET {EMPTIED} {_OWNED}"
_RETRY = (
    f"UPDATE {TASKS} SET state = {State.WAITING:d}, owner = NULL, due = %s, attempts = %s, responses = %s,"
    f" first_attempt = %s, status = %s, busy = %s, crashes = 0, alone = %s, progress = '' {_OWNED}"
)
_RETURN = (
    f"UPDATE {TASKS} SET state = CASE WHEN alone = %s THEN {State.SUSPECT:d} ELSE {State.WAITING:d} END,"
    f" owner = NULL, alone = %s {_OWNED}"
)

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
# The second condition is that of the index.
_SUSPECTS = (
    f"SELECT {COLUMNS} FROM {TASKS} WHERE state = {State.SUSPECT:d} AND state > 1 AND due <= %s ORDER BY due LIMIT 50"
)


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
        deleted, ended, retried, returned = [], [], [], []
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
                retried.append((*verdict[2:], False, *key))
            elif outcome is Outcome.RETURNED:
                returned.append((True, False, *key))
            else:
                self._exhaust(cursor, leased, verdict.attempts, verdict.status or NO_ANSWER)
        for sql, rows in ((_DELETE, deleted), (_END, ended), (_RETRY, retried), (_RETURN, returned)):
            if rows:
                cursor.executemany(sql, rows)

    def _free_from(self) -> int:
        """Return when a name that ends now is free again."""
        return self.clock.now() + round(get_settings().tombstone_seconds * SECOND)

    def _exhaust(self, cursor: CursorWrapper, leased: Leased, attempts: int, status: int) -> bool:
        """End a task for good and tell of it, if the row is still in the same hands."""
        if leased.owner is None:
            where, key = "WHERE id = %s AND owner IS NULL", (leased.id,)
        else:
            where, key = _OWNED, (leased.id, leased.owner)  # type: ignore[assignment]
        try:
            # A savepoint: whoever is told may fail without taking the other verdicts along.
            with transaction.atomic(using=self.alias):
                if leased.named:
                    cursor.execute(f"UPDATE {TASKS} SET {EMPTIED} {where}", (self._free_from(), b"", *key))
                else:
                    cursor.execute(f"DELETE FROM {TASKS} {where}", key)
                if cursor.rowcount != 1:
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
            cursor.execute(f"UPDATE {TASKS} SET state = {State.WAITING:d}, owner = NULL, due = %s {where}", (due, *key))
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
        running: dict[str, int] = {}
        limited = [view for view in views if is_limited(view.name, options)]
        if limited:
            cursor.execute(_RUNNING_BY_QUEUE)
            running = dict(cursor.fetchall())
        shares = allot(views, limit, now, options, running)
        if not shares:
            return []
        leased = self.claim(cursor, worker, shares, limit)
        for view in limited:
            rate = options[view.name].rate_per_second
            taken = sum(task.queue == view.name for task in leased)
            if rate is not None and taken:
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
            return next_moment(self._views(cursor, queues), self.clock.now(), get_queues())

    # Suspects.

    def _find_suspects(self, queues: Queues) -> list[Leased]:
        rows = self.select(_SUSPECTS, (self.clock.now(),))
        if not rows:
            return []
        paused = {name for (name,) in self.select(f"SELECT name FROM {QUEUES} WHERE paused = %s", (True,))}
        found = [Leased._make(row) for row in rows]
        return [
            leased
            for leased in found
            if (queues is None or leased.queue in queues) and (leased.queue not in paused or leased.due == 0)
        ]

    def next_suspect(self, queues: Queues = None) -> int | None:
        """Return since when a suspect has been due, or None."""
        found = self._find_suspects(queues)
        return found[0].due if found else None

    def claim_suspect(self, worker: int, queues: Queues = None) -> Leased | None:
        """Claim one suspect, to run it alone."""
        with self.writing() as cursor:
            for leased in self._find_suspects(queues):
                progress = self._ask_progress(leased)
                cursor.execute(
                    f"UPDATE {TASKS} SET state = {State.RUNNING:d}, owner = %s, alone = %s, progress = %s"
                    f" WHERE id = %s AND state = {State.SUSPECT:d} AND EXISTS (SELECT 1 FROM {WORKERS} WHERE id = %s)",
                    (worker, True, progress, leased.id, worker),
                )
                if cursor.rowcount == 1:
                    return leased._replace(owner=worker, alone=True, progress=progress)
        return None

    def _ask_progress(self, leased: Leased) -> str:
        try:
            with transaction.atomic(using=self.alias):
                return hooks.ask_progress(leased.to_task())
        except Exception:
            logger.exception("could not tell how far task %s of queue %s has come", leased.name, leased.queue)
            return ""

    def _blame(self, cursor: CursorWrapper, leased: Leased) -> None:
        """Blame a task that was alone in its process when that died, unless it got further than before."""
        moved = self._ask_progress(leased) != leased.progress
        crashes = 0 if moved else leased.crashes + 1
        if crashes >= MOST_CRASHES and self._exhaust(cursor, leased, leased.attempts, NO_ANSWER):
            logger.error(
                "task %s of queue %s ended its process %d times and was given up", leased.name, leased.queue, crashes
            )
            return
        cursor.execute(
            f"UPDATE {TASKS} SET state = {State.SUSPECT:d}, owner = NULL, alone = %s, crashes = %s {_OWNED}",
            (False, crashes, leased.id, leased.owner),
        )

    # Workers.

    def is_ready(self) -> bool:
        """Tell whether the tables are there."""
        connection = connections[self.alias]
        with connection.cursor() as cursor:
            return {TASKS, QUEUES, WORKERS} <= set(connection.introspection.table_names(cursor))

    def join(self, host: str, pid: int, born: int) -> int:
        """Enter a worker process."""
        now = self.clock.now()
        with self.writing() as cursor:
            return self.insert_worker(cursor, (host, pid, born, now, now))

    @abstractmethod
    def insert_worker(self, cursor: CursorWrapper, values: tuple[Any, ...]) -> int:
        """Insert host, pid, born, started and heartbeat; return the new id."""

    def leave(self, worker: int) -> None:
        """Strike a worker off; what it still holds comes back as it was."""
        with self.writing() as cursor:
            self._release(cursor, worker)
            cursor.execute(f"DELETE FROM {WORKERS} WHERE id = %s", (worker,))

    def release_unknown(self, worker: int, known: Collection[int]) -> int:
        """Give back what a worker leases without knowing."""
        with self.writing() as cursor:
            held = {
                row
                for (row,) in self.fetch(cursor, f"SELECT id FROM {TASKS} WHERE state = 1 AND owner = %s", (worker,))
            }
            unknown = held - set(known)
            if unknown:
                cursor.executemany(_RETURN, [(True, False, row, worker) for row in unknown])
        return len(unknown)

    @staticmethod
    def fetch(cursor: CursorWrapper, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Run a query in the open transaction."""
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())

    def _release(self, cursor: CursorWrapper, worker: int) -> None:
        cursor.execute(
            f"UPDATE {TASKS} SET state = CASE WHEN alone = %s THEN {State.SUSPECT:d} ELSE {State.WAITING:d} END,"
            f" owner = NULL, alone = %s WHERE state = {State.RUNNING:d} AND owner = %s",
            (True, False, worker),
        )

    def beat(self, worker: int) -> bool:
        """Note that a worker is alive."""
        with self.writing() as cursor:
            cursor.execute(
                f"UPDATE {WORKERS} SET heartbeat = %s, beats = beats + 1 WHERE id = %s", (self.clock.now(), worker)
            )
            return bool(cursor.rowcount)

    def list_workers(self) -> list[WorkerRecord]:
        """Return the worker processes, oldest first."""
        columns = ", ".join(WorkerRecord._fields)
        return [WorkerRecord._make(row) for row in self.select(f"SELECT {columns} FROM {WORKERS} ORDER BY id")]

    def reclaim(self, record: WorkerRecord, patience: float) -> int | None:
        """Strike a dead worker off and give its tasks back as suspects."""
        asked = self.clock.monotonic()
        with self.writing() as cursor:
            if self.clock.monotonic() - asked > patience:
                return None
            cursor.execute(f"DELETE FROM {WORKERS} WHERE id = %s AND beats = %s", (record.id, record.beats))
            if cursor.rowcount != 1:
                return None
            running = f"FROM {TASKS} WHERE state = {State.RUNNING:d} AND owner = %s AND alone = %s"
            alone = [Leased._make(row) for row in self.fetch(cursor, f"SELECT {COLUMNS} {running}", (record.id, True))]
            for leased in alone:
                self._blame(cursor, leased)
            cursor.execute(
                f"UPDATE {TASKS} SET state = {State.SUSPECT:d}, owner = NULL"
                f" WHERE state = {State.RUNNING:d} AND owner = %s",
                (record.id,),
            )
            return len(alone) + max(0, int(cursor.rowcount))
