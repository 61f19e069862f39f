"""What an operator should look at now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from soc_tasks.state.base import ShardRecord

if TYPE_CHECKING:
    from soc_tasks.logic.overview import Counts, QueueFigures

#: Seconds for which a due task may wait before that is late.
LATE: Final = 300.0
#: For how long a task may lie in an outbox, and a shard run without progress.
RELAYED_WITHIN: Final = timedelta(minutes=1)
STALLED_AFTER: Final = timedelta(minutes=5)
#: How many leases a worker may be silent before it counts as gone.
_LEASES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that is wrong.

    Args:
        kind: "backend_unavailable", "no_worker", "queue_late", "outbox_waits", "dead_letters", "iteration_stalled" or
            "queue_paused".
        level: "error" where work stands still or is lost sight of, else "warning".
        message: what is wrong and what helps, in a sentence or two.
        queue: the queue that is meant, or None.
        iteration: the id of the iteration that is meant, or None.
        count: how many it is true of, or None.
        mend: the command that helps, or "".
    """

    kind: str
    level: str
    message: str
    queue: str | None = None
    iteration: str | None = None
    count: int | None = None
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True, kw_only=True)
class Signs:
    """What alerts are made of.

    Args:
        now: by the backend's clock.
        lease: for how long a worker may be silent before its tasks go to others.
        unavailable: why the queues' service is not to be had, or "".
        counts, queues: as in the overview.
        heartbeats: when each worker was last seen; None: they are none of ours.
        held_since: when the oldest task of the outboxes was made.
        stalled: running shards without progress.
    """

    now: datetime
    lease: timedelta
    unavailable: str = ""
    counts: Counts | None = None
    queues: Sequence[QueueFigures] = ()
    heartbeats: Sequence[datetime] | None = None
    held_since: datetime | None = None
    stalled: Sequence[ShardRecord] = field(default=())

    def seen(self) -> list[datetime]:
        """Return when the workers were seen that live."""
        return [beat for beat in self.heartbeats or () if self.now - beat <= _LEASES * self.lease]

    @staticmethod
    def stalled_before(now: datetime) -> datetime:
        """Return before when a running shard must have made its last progress to count as stalled."""
        return now - STALLED_AFTER


def find_alerts(signs: Signs) -> tuple[Alert, ...]:
    """Return what is wrong, the worst first."""
    found = [
        *_find_unavailable(signs),
        *_find_no_worker(signs),
        *_find_late(signs),
        *_find_held(signs),
        *_find_letters(signs),
        *_find_stalled(signs),
        *_find_paused(signs),
    ]
    return tuple(sorted(found, key=lambda alert: alert.level != "error"))


def _find_unavailable(signs: Signs) -> Iterator[Alert]:
    if signs.unavailable:
        yield Alert(kind="backend_unavailable", level="error", message=signs.unavailable)


def _find_no_worker(signs: Signs) -> Iterator[Alert]:
    if signs.heartbeats is None or signs.seen():
        return
    due = (signs.counts.due if signs.counts is not None else None) or 0
    last = max(signs.heartbeats, default=None)
    since = "No worker runs" if last is None else f"No worker was seen since {last.isoformat(timespec='seconds')}"
    yield Alert(
        kind="no_worker",
        level="error" if due else "warning",
        message=f"{since}. Start one: manage.py tasks run.",
        count=due,
        mend="manage.py tasks run",
    )


def _find_late(signs: Signs) -> Iterator[Alert]:
    for queue in signs.queues:
        if not queue.paused and queue.oldest_age is not None and queue.oldest_age > LATE:
            yield Alert(
                kind="queue_late",
                level="warning",
                message=f"A task of the queue {queue.name} has been due for {_tell(queue.oldest_age)}. More workers, a "
                "higher rate in CLOUD_TASKS_QUEUES, or shorter tasks help.",
                queue=queue.name,
                count=queue.due,
                mend="manage.py tasks run",
            )


def _find_held(signs: Signs) -> Iterator[Alert]:
    if signs.held_since is not None and signs.now - signs.held_since > RELAYED_WITHIN:
        age = _tell((signs.now - signs.held_since).total_seconds())
        yield Alert(
            kind="outbox_waits",
            level="error",
            message=f"A task has waited in the outbox for {age}. Hand it on: manage.py tasks relay; and have that run "
            "all the time.",
            count=None if signs.counts is None else signs.counts.outbox,
            mend="manage.py tasks relay",
        )


def _find_letters(signs: Signs) -> Iterator[Alert]:
    count = (signs.counts.recent_dead_letters if signs.counts is not None else None) or 0
    if count:
        yield Alert(
            kind="dead_letters",
            level="warning",
            message=f"{count:,} {'task' if count == 1 else 'tasks'} failed for good in the last hour: "
            "manage.py tasks failed.",
            count=count,
            mend="manage.py tasks failed",
        )


def _find_stalled(signs: Signs) -> Iterator[Alert]:
    # What is held back by its throttle has a reason to stand still.
    shards = Counter(shard.iteration for shard in signs.stalled if not shard.hold)
    for iteration, count in shards.items():
        yield Alert(
            kind="iteration_stalled",
            level="warning",
            message=f"{count:,} {'shard' if count == 1 else 'shards'} of the iteration {iteration} made no progress "
            f"for {_tell(STALLED_AFTER.total_seconds())}. Its task may wait in a queue that is paused or full; one "
            "that is lost is queued anew after 15 minutes.",
            iteration=iteration,
            count=count,
            mend="manage.py tasks queues",
        )


def _find_paused(signs: Signs) -> Iterator[Alert]:
    for queue in signs.queues:
        # Where nobody counts, that it is paused is all that can be told.
        if queue.paused and queue.waiting != 0:
            many = "" if queue.waiting is None else f", and {queue.waiting:,} tasks wait in it"
            yield Alert(
                kind="queue_paused",
                level="warning",
                message=f"The queue {queue.name} is paused{many}. Let it go on: manage.py tasks resume {queue.name}.",
                queue=queue.name,
                count=queue.waiting,
                mend=f"manage.py tasks resume {queue.name}",
            )


def _tell(seconds: float) -> str:
    """Return a span in whole units."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
