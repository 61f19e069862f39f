"""Looking after queues: lists, pause, run now, delete, purge, and the sweeping of what is old."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, ClassVar, Final

from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.engine.records import QueueRecord, TaskRecord
from soc_tasks.engine.store.base import Queues
from soc_tasks.engine.store.minutes import MinuteStore
from soc_tasks.engine.store.rows import COLUMNS, QUEUES, TASKS, Leased, State, by_due, by_name
from soc_tasks.engine.verdicts import EXPIRED
from soc_tasks.values import Task

#: Rows that one transaction of a purge takes, so that others get their turn.
PURGE_BATCH: Final = 1000
#: How many chosen names one query looks up.
NAME_BATCH: Final = 200
#: How many queues one query counts.
QUEUE_BATCH: Final = 50

_LIVE = f"state <> {State.ENDED:d}"
# Lists leave out bodies, which may be large.
_LISTED = COLUMNS.replace("body", "NULL AS body")
# Running tasks, suspects, waiting tasks: the condition of each one's index.
_BY_STATE = (f"state = {State.RUNNING:d}", f"state = {State.SUSPECT:d}", f"state = {State.WAITING:d}")
_ORDER = {State.RUNNING: 0, State.SUSPECT: 1, State.WAITING: 2}
_NAMES = {State.WAITING: "waiting", State.RUNNING: "running", State.SUSPECT: "suspect"}


#: How many tasks of a queue are due and scheduled, and since when the oldest has been due.
_Counts = tuple[int, int, int | None]
_NONE: Final[_Counts] = (0, 0, None)


class ConsoleStore(MinuteStore):
    """The part of a store that people use."""

    #: The table of tasks, where waiting ones are counted.
    waiting: ClassVar[str] = TASKS
    #: Id of the last row that was looked at for its age.
    _swept = 0

    def list_queues(self, most: int | None = None) -> list[QueueRecord]:
        """Return the queues that have tasks or a state, by name."""
        now = self.clock.now()
        kept = {name: rest for name, *rest in self.select(f"SELECT name, paused, purged FROM {QUEUES}")}
        with self.cursor() as cursor:
            running = self._count_running(cursor)
            waiting = self._count_waiting(cursor, [view.name for view in self._views(cursor, None)], now, most)
        suspects = self._count_suspects(now, most)
        paces = self.find_paces()
        records = []
        for name in sorted(filter(self.means, {*waiting, *suspects, *running, *kept})):
            paused, purged = kept.get(name, (False, None))
            parts = [counts.get(name, _NONE) for counts in (waiting, suspects)]
            due, scheduled = sum(part[0] for part in parts), sum(part[1] for part in parts)
            records.append(
                QueueRecord(
                    name=name,
                    paused=bool(paused),
                    due=due,
                    scheduled=scheduled,
                    running=running.get(name, 0),
                    oldest=_moment(min((part[2] for part in parts if part[2]), default=None)),
                    purged=_moment(purged),
                    pace=paces.get(name),
                    capped=most is not None and max(due, scheduled) >= most,
                )
            )
        return records

    def _count_waiting(
        self, cursor: CursorWrapper, names: Sequence[str], now: int, most: int | None
    ) -> dict[str, _Counts]:
        """Return of each queue how many tasks are due and scheduled, and since when the oldest has been due."""
        found: dict[str, _Counts] = {}
        for first in range(0, len(names), QUEUE_BATCH):
            part = names[first : first + QUEUE_BATCH]
            sql = " UNION ALL ".join(_count_queue(self.waiting, number, most) for number in range(len(part)))
            given = [value for name in part for value in (name, now, name, now, name, now, name)]
            for number, due, scheduled, since, asked in self.fetch(cursor, sql, given):
                # What is to run at once has been due since that was asked for.
                moments = [abs(moment) for moment in (since, asked) if moment is not None]
                found[part[number]] = (due, scheduled, min(moments, default=None))
        return found

    def _count_suspects(self, now: int, most: int | None) -> dict[str, _Counts]:
        limit = "" if most is None else f" LIMIT {most:d}"
        suspects = f"SELECT queue, due FROM {TASKS} WHERE {_BY_STATE[1]} ORDER BY due{limit}"
        rows = self.select(
            "SELECT queue, sum(CASE WHEN due <= %s THEN 1 ELSE 0 END), sum(CASE WHEN due > %s THEN 1 ELSE 0 END),"
            " min(CASE WHEN due <= %s THEN abs(due) END)"
            f" FROM ({suspects}) AS suspects GROUP BY queue",
            (now, now, now),
        )
        return {queue: (int(due), int(scheduled), since) for queue, due, scheduled, since in rows}

    def list_tasks(self, queue: str | None = None, *, limit: int = 100) -> list[TaskRecord]:
        """Return tasks without their bodies: running ones, then by when they are due."""
        where, given = ("queue = %s AND ", (queue, limit)) if queue is not None else ("", (limit,))
        # Each part is served by the index of its state; one statement, so that no task slips from one into the next.
        parts = [
            f"SELECT * FROM (SELECT {_LISTED}, state FROM {TASKS} WHERE {where}{condition} ORDER BY due, id LIMIT %s)"
            f" AS part{number}"
            for number, condition in enumerate(_BY_STATE)
        ]
        rows = self.select(" UNION ALL ".join(parts), given * len(parts))
        # A union promises no order.
        rows.sort(key=lambda row: (_ORDER[State(row[-1])], *by_due(Leased._make(row[:-1]))))
        return [make_record(row) for row in rows[:limit]]

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task."""
        which, given = by_name(name, queue)
        rows = self.select(f"SELECT {COLUMNS}, state FROM {TASKS} WHERE {which} AND {_LIVE}", given)
        return make_record(rows[0]) if rows else None

    def run_now(self, queue: str, name: str) -> bool:
        """Make a task due at once, past pause and rates."""
        which, given = by_name(name, queue)
        with self.writing() as cursor:
            # The time of this call, below 0: if it fails, it is tried again as from now.
            cursor.execute(
                f"UPDATE {TASKS} SET due = %s WHERE {which} AND state IN ({State.WAITING:d}, {State.SUSPECT:d})",
                (-self.clock.now(), *given),
            )
            found = bool(cursor.rowcount)
            self.wake_on_commit()
        return found

    def delete(self, queue: str, name: str) -> bool:
        """Delete a task, running or not."""
        which, given = by_name(name, queue)
        with self.writing() as cursor:
            return self._remove(cursor, f"{which} AND {_LIVE}", given) > 0

    def set_paused(self, queue: str, paused: bool) -> None:
        """Pause a queue, or let it run again."""
        with self.writing() as cursor:
            self._keep(cursor, queue, paused=paused)
            self.wake_on_commit()

    def purge(self, queue: str) -> int:
        """Delete the tasks that are in a queue now."""
        with self.writing() as cursor:
            self._keep(cursor, queue, purged=self.clock.now())
        # All of them at first, eight bytes each: by nothing that a row holds could those be told that come later.
        parts = [f"SELECT id FROM {TASKS} WHERE queue = %s AND {state}" for state in _BY_STATE]
        ids, count = array("q"), 0
        with self.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(parts), (queue,) * len(parts))
            while rows := cursor.fetchmany(PURGE_BATCH):
                ids.extend(row for (row,) in rows)
        for first in range(0, len(ids), PURGE_BATCH):
            some = ", ".join(map(str, ids[first : first + PURGE_BATCH]))
            with self.writing() as cursor:
                count += self._remove(cursor, f"id IN ({some}) AND {_LIVE}", ())
        return count

    def find_taken(self, tasks: Sequence[Task]) -> list[Task]:
        """Return those of `tasks` whose chosen names are taken."""
        named = [task for task in tasks if task.named]
        with self.cursor() as cursor:
            taken = self.find_names(cursor, named)
        return [task for task in named if (task.queue, task.name) in taken]

    def find_names(self, cursor: CursorWrapper, tasks: Sequence[Task]) -> set[tuple[str, str]]:
        """Return the queues and names of those of `tasks` whose names are taken, chosen or not."""
        taken: set[tuple[str, str]] = set()
        for start in range(0, len(tasks), NAME_BATCH):
            part = tasks[start : start + NAME_BATCH]
            which, given = zip(*(by_name(task.name, task.queue) for task in part), strict=True)
            sql = f"SELECT queue, name FROM {TASKS} WHERE ({' OR '.join(which)}) AND ({_LIVE} OR due > %s)"
            taken.update(self.fetch(cursor, sql, (*chain.from_iterable(given), self.clock.now())))
        return taken

    def is_empty(self, queues: Queues = None) -> bool:
        """Tell whether nothing is due, running, or waits for a retry."""
        running, suspects, waiting = _BY_STATE
        # What waits for its first attempt is scheduled; what had one, or was busy, waits for a retry. What no worker
        # knew is tried when it is due, and not waited for: that would be for a worker of another release.
        suspects += " AND (due <= %s OR unknown IS NULL)"
        waiting += " AND (due <= %s OR (unknown IS NULL AND (attempts > 0 OR busy > 0)))"
        parts = [
            f"SELECT queue, {waits:d}, min(due) FROM {TASKS} WHERE {condition} GROUP BY queue"
            for waits, condition in zip((0, 1, 1), (running, suspects, waiting), strict=True)
        ]
        now = self.clock.now()
        # One statement: a task that is claimed or fails meanwhile must not slip through.
        rows = self.select(" UNION ALL ".join(parts), (now, now))
        paused = {name for (name,) in self.select(f"SELECT name FROM {QUEUES} WHERE paused = %s", (True,))}
        return not any(
            self.means(queue, queues) and not (waits and queue in paused and due > 0) for queue, waits, due in rows
        )

    def count_retries(self, queues: Queues = None) -> tuple[int, int]:
        """Return how many tasks wait to be tried again, and when the first of them is due."""
        rows = self.select(
            f"SELECT queue, count(*), min(due) FROM {TASKS} WHERE state IN ({State.WAITING:d}, {State.SUSPECT:d})"
            f" AND due > %s AND unknown IS NULL AND (attempts > 0 OR busy > 0)"
            f" AND queue NOT IN (SELECT name FROM {QUEUES} WHERE paused = %s) GROUP BY queue",
            (self.clock.now(), True),
        )
        meant = [(count, due) for queue, count, due in rows if self.means(queue, queues)]
        return sum(count for count, _ in meant), min((due for _, due in meant), default=0)

    def count_unknown(self, queues: Queues = None) -> int:
        """Return how many tasks wait for a worker that knows them."""
        rows = self.select(
            f"SELECT queue, count(*) FROM {TASKS} WHERE state IN ({State.WAITING:d}, {State.SUSPECT:d})"
            " AND unknown IS NOT NULL GROUP BY queue"
        )
        return sum(count for queue, count in rows if self.means(queue, queues))

    def sweep(self, *, retention: float, limit: int = 500) -> int:
        """Forget names that are free again, and exhaust tasks that are too old."""
        now = self.clock.now()
        with self.writing() as cursor:
            free = f"state = {State.ENDED:d} AND due <= %s"
            rows = self.fetch(cursor, f"SELECT id FROM {TASKS} WHERE {free} LIMIT %s", (now, limit))
            if rows:
                cursor.executemany(f"DELETE FROM {TASKS} WHERE id = %s AND state = {State.ENDED:d}", rows)
            count = len(rows)
            self.sweep_minutes(cursor, limit)
        oldest = now - round(retention * SECOND)
        first, last = self._next_page(limit, oldest)
        # What was scheduled far ahead has the whole time for its attempts; a retry gives no new time.
        sql = (
            f"SELECT {COLUMNS} FROM {TASKS} WHERE id > %s AND id <= %s"
            f" AND state IN ({State.WAITING:d}, {State.SUSPECT:d})"
            " AND created < %s AND COALESCE(first_attempt, abs(due)) < %s"
        )
        for row in self.select(sql, (first, last, oldest, oldest)):
            leased = Leased._make(row)
            with self.writing() as cursor:
                count += self._exhaust(cursor, leased, leased.attempts, EXPIRED)
        return count

    @property
    def is_amid_sweep(self) -> bool:
        """Tell whether the last sweep did not look at all rows that may be old."""
        return self._swept > 0

    def _next_page(self, limit: int, oldest: int) -> tuple[int, int]:
        """Return the ids between which this sweep looks for tasks from before `oldest`.

        Ids rise with time, so the old ones are the first; but names that are kept and tasks that are scheduled far
        ahead stand between them. So each sweep goes on where the one before it ended, until all rows are young.
        """
        first = self._swept
        page = f"SELECT id, created FROM {TASKS} WHERE id > %s ORDER BY id LIMIT %s"
        ((last, count, created),) = self.select(
            f"SELECT max(id), count(*), min(created) FROM ({page}) AS page", (first, limit)
        )
        at_end = count < limit or created >= oldest
        self._swept = 0 if at_end else last
        return first, last or first


def _count_queue(table: str, number: int, most: int | None) -> str:
    """Return the query that counts one queue: steps in the index, and no more rows than asked for."""
    rows = f"FROM {table} WHERE {_BY_STATE[2]} AND queue = %s AND due"
    limit = "" if most is None else f" LIMIT {most:d}"
    return (
        f"SELECT {number:d}, (SELECT count(*) FROM (SELECT 1 AS one {rows} <= %s{limit}) AS due),"
        f" (SELECT count(*) FROM (SELECT 1 AS one {rows} > %s{limit}) AS later),"
        f" (SELECT min(due) {rows} > 0 AND due <= %s), (SELECT max(due) {rows} <= 0)"
    )


def _moment(micros: int | None) -> Any:
    return None if not micros else from_micros(micros)


def make_record(row: Sequence[Any]) -> TaskRecord:
    """Return a row of `COLUMNS`, with the state behind them, as people see it."""
    leased = Leased._make(row[:-1])
    task = leased.to_task()
    state = _NAMES[State(row[-1])]
    return TaskRecord(
        task=task,
        state="unknown" if state == "waiting" and leased.unknown else state,
        due=from_micros(abs(leased.due) or leased.created),
        attempts=leased.attempts,
        responses=leased.responses,
        first_attempt=_moment(leased.first_attempt),
        status=leased.status,
        # What came by the server of Cloud Tasks has its attempts there.
        error="" if task.target else leased.note,
        crashes=leased.crashes,
        unknown=_moment(leased.unknown),
    )
