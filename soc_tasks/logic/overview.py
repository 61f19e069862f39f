"""How the whole thing is, at one glance: counts, queues, the last hour by minute, what runs, and what is wrong.

All of it comes from a few queries that indexes answer, and that count no further than a cap: with a million tasks in
the queues it takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from soc_tasks.backends import get_backend
from soc_tasks.conf import get_queues, get_settings
from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.engine.records import MinuteRecord, QueueRecord
from soc_tasks.errors import BackendUnavailableError, NotSupportedError
from soc_tasks.logic.alerts import Alert, Signs, find_alerts
from soc_tasks.logic.iterations import Iteration
from soc_tasks.state import get_state

__all__ = ["Alert", "Counts", "MinuteFigures", "Overview", "QueueFigures", "read_overview"]

#: Up to where things are counted.
CAP: Final = 10_000
#: Rows that all queues together are counted by, so that many queues do not take long.
BUDGET: Final = 100_000
#: How many iterations are shown.
ITERATIONS: Final = 20
#: The time that the chart shows.
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many there are; None where nobody can tell.

    Args:
        waiting: tasks that wait, scheduled ones and retries included.
        due: those of them that could run now: their time has come, and their queue is not paused.
        running: tasks in workers' hands.
        paused: tasks that wait in queues that are paused.
        dead_letters: tasks that failed for good, and are kept.
        recent_dead_letters: those of the last hour.
        outbox: tasks that committed, and were not handed to their queue yet.
        capped: names of those of which there are at least so many.
    """

    waiting: int | None = None
    due: int | None = None
    running: int | None = None
    paused: int | None = None
    dead_letters: int | None = None
    recent_dead_letters: int | None = None
    outbox: int | None = None
    capped: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return them ready for JSON."""
        return {name: getattr(self, name) for name in _COUNTED} | {"capped": list(self.capped)}


_COUNTED: Final = ("waiting", "due", "running", "paused", "dead_letters", "recent_dead_letters", "outbox")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """A queue; figures are None where nobody can tell.

    Args:
        name: its name.
        paused: whether it is paused.
        configured: whether CLOUD_TASKS_QUEUES names it ("default" always is).
        waiting, due, running: tasks; due counts those whose time has come, even if the queue is paused.
        capped: whether there are at least so many.
        oldest: since when the oldest due task has been due.
        oldest_age: seconds since then.
        rate, failure_rate: attempts a second that ended of late, and those of them that failed.
        succeeded, failed, dead: attempts of the last hour; tasks that failed for good.
        mean_seconds: how long an attempt took in that hour.
        rate_limit: tasks a second that its options allow, or None for any number.
        pace: tasks a second that it is held to for a while, or None.
        concurrency: tasks that may run at one time, or None for any number.
    """

    name: str
    paused: bool = False
    configured: bool = True
    waiting: int | None = None
    due: int | None = None
    running: int | None = None
    capped: bool = False
    oldest: datetime | None = None
    oldest_age: float | None = None
    rate: float | None = None
    failure_rate: float | None = None
    succeeded: int | None = None
    failed: int | None = None
    dead: int | None = None
    mean_seconds: float | None = None
    rate_limit: float | None = None
    pace: float | None = None
    concurrency: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {"oldest": None if self.oldest is None else self.oldest.isoformat()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteFigures:
    """What came of attempts in one minute: how many succeeded and failed, tasks that died, seconds that all took."""

    minute: datetime
    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "minute": self.minute.isoformat(),
            "succeeded": self.succeeded,
            "failed": self.failed,
            "dead": self.dead,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How the whole thing is.

    Args:
        time: when it was read.
        backend: as in the settings.
        counts: by state.
        queues: those that are configured, or have tasks or a state, by name.
        minutes: the last hour, oldest first, the minute that is under way last; None where nobody counts.
        iterations: those that run or are paused, newest first.
        workers: how many workers were seen lately; None where they are none of ours.
        last_seen: when the last of them was seen.
        alerts: what is wrong, the worst first.
    """

    time: datetime
    backend: str
    counts: Counts
    queues: tuple[QueueFigures, ...]
    minutes: tuple[MinuteFigures, ...] | None = None
    iterations: tuple[Iteration, ...] = ()
    workers: int | None = None
    last_seen: datetime | None = None
    alerts: tuple[Alert, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON: names of queues and views, and figures; nothing of what tasks carry."""
        return {
            "time": self.time.isoformat(),
            "backend": self.backend,
            "counts": self.counts.as_dict(),
            "queues": [queue.as_dict() for queue in self.queues],
            "minutes": None if self.minutes is None else [minute.as_dict() for minute in self.minutes],
            "iterations": [
                {
                    "id": iteration.id,
                    "name": iteration.name,
                    "created": None if iteration.created is None else iteration.created.isoformat(),
                    **iteration.progress.as_dict(),
                }
                for iteration in self.iterations
            ],
            "workers": self.workers,
            "last_seen": None if self.last_seen is None else self.last_seen.isoformat(),
            "alerts": [alert.as_dict() for alert in self.alerts],
        }


def read_overview() -> Overview:
    """Return how the whole thing is now; where the queues' service is not to be had, what is known without it."""
    backend, state = get_backend(), get_state()
    now = backend.now()
    signs = Signs(now=now, lease=timedelta(seconds=get_settings().lease_seconds))
    records: list[QueueRecord] | None
    try:
        records = backend.list_queues(max(1, min(CAP, BUDGET // max(1, len(get_queues())))))
    except BackendUnavailableError as error:
        records, signs.unavailable = None, str(error)
    except NotSupportedError:
        records = None
    minutes = backend.list_minutes(now - HOUR + MINUTE)
    queues = _judge_queues(records, minutes, now)
    counts, signs.held_since = _count(queues, records is not None, now)
    found = state.list_open_iterations(ITERATIONS)
    iterations = tuple(Iteration(record, shards) for record, shards in found)
    heartbeats = backend.list_heartbeats()
    signs.heartbeats, signs.counts, signs.queues = heartbeats, counts, queues
    signs.stalled = state.list_stalled_shards(signs.stalled_before(state.now()), CAP // 100)
    return Overview(
        time=now,
        backend=get_settings().backend,
        counts=counts,
        queues=queues,
        minutes=None if minutes is None else _chart(minutes, now),
        iterations=iterations,
        workers=None if heartbeats is None else len(signs.seen()),
        last_seen=max(heartbeats or (), default=None),
        alerts=find_alerts(signs),
    )


def _judge_queues(
    records: Sequence[QueueRecord] | None, minutes: Sequence[MinuteRecord] | None, now: datetime
) -> tuple[QueueFigures, ...]:
    known = {record.name: record for record in records or ()}
    configured = get_queues()
    past: dict[str, list[MinuteRecord]] = {}
    for minute in minutes or ():
        past.setdefault(minute.queue, []).append(minute)
    figures = []
    for name in sorted({*known, *configured, *past}):
        # A queue of the service that it does not name is not there; one of ours is empty.
        record = known.get(name) or (QueueRecord(name=name) if records is not None else None)
        options = configured.get(name)
        figures.append(
            QueueFigures(
                name=name,
                configured=options is not None,
                rate_limit=None if options is None else options.rate_per_second,
                concurrency=None if options is None else options.rate_max_concurrent,
                **({} if record is None else _judge_queue(record, now)),
                **({} if minutes is None else _judge_past(past.get(name, ()), now)),
            )
        )
    return tuple(figures)


def _judge_queue(record: QueueRecord, now: datetime) -> Mapping[str, Any]:
    return {
        "paused": record.paused,
        "waiting": None if record.due is None or record.scheduled is None else record.due + record.scheduled,
        "due": record.due,
        "running": record.running,
        "capped": record.capped,
        "oldest": record.oldest,
        "oldest_age": None if record.oldest is None else max(0.0, (now - record.oldest).total_seconds()),
        "pace": record.pace,
    }


def _judge_past(minutes: Sequence[MinuteRecord], now: datetime) -> Mapping[str, Any]:
    succeeded, failed = sum(each.succeeded for each in minutes), sum(each.failed for each in minutes)
    spent = sum(each.spent for each in minutes) / SECOND
    # Of the minute that is under way, and the one before.
    begin = _floor(now) - MINUTE
    late = [each for each in minutes if from_micros(each.minute) >= begin]
    seconds = (now - begin).total_seconds()
    late_failed = sum(each.failed for each in late)
    return {
        "succeeded": succeeded,
        "failed": failed,
        "dead": sum(each.dead for each in minutes),
        "mean_seconds": spent / (succeeded + failed) if succeeded + failed else None,
        "rate": (sum(each.succeeded for each in late) + late_failed) / seconds,
        "failure_rate": late_failed / seconds,
    }


def _count(queues: Sequence[QueueFigures], known: bool, now: datetime) -> tuple[Counts, datetime | None]:
    """Return the counts by state, and since when the oldest task of the outboxes waits there."""
    state = get_state()
    letters, recent = state.count_dead_letters(CAP), state.count_dead_letters(CAP, since=now - HOUR)
    held, held_since = state.count_held(CAP)
    capped = [
        name
        for name, count in (("dead_letters", letters), ("recent_dead_letters", recent), ("outbox", held))
        if count >= CAP
    ]
    if any(queue.capped for queue in queues):
        capped += ["waiting"]
        capped += ["due"] * any(queue.capped and not queue.paused for queue in queues)
        capped += ["paused"] * any(queue.capped and queue.paused for queue in queues)
    counts = Counts(
        waiting=_sum([queue.waiting for queue in queues]) if known else None,
        due=_sum([queue.due for queue in queues if not queue.paused]) if known else None,
        running=_sum([queue.running for queue in queues]) if known else None,
        paused=_sum([queue.waiting for queue in queues if queue.paused]) if known else None,
        dead_letters=letters,
        recent_dead_letters=recent,
        outbox=held,
        capped=tuple(capped),
    )
    return counts, held_since


def _sum(numbers: Sequence[int | None]) -> int | None:
    """Return the sum, or None if one of them is unknown."""
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _chart(minutes: Sequence[MinuteRecord], now: datetime) -> tuple[MinuteFigures, ...]:
    """Return all minutes of the last hour, those in which nothing happened as well."""
    sums: dict[datetime, list[int]] = {}
    for each in minutes:
        row = sums.setdefault(from_micros(each.minute), [0, 0, 0, 0])
        row[:] = [there + more for there, more in zip(row, each[2:], strict=True)]
    last = _floor(now)
    chart = []
    for number in range(HOUR // MINUTE - 1, -1, -1):
        succeeded, failed, dead, spent = sums.get(last - number * MINUTE, (0, 0, 0, 0))
        chart.append(
            MinuteFigures(
                minute=last - number * MINUTE, succeeded=succeeded, failed=failed, dead=dead, seconds=spent / SECOND
            )
        )
    return tuple(chart)


def _floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)
