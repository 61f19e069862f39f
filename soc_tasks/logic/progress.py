"""How far an iteration is, how fast it gets on, and how long it will take: for the code of the site, and for people."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord

#: Seconds over which a rate is taken: what was done so long ago counts e times less than what was done now.
PERIOD: Final = 10.0
#: Times that further off are none that anybody could tell.
FURTHEST: Final = timedelta(days=3650)
ENDED: Final = ("succeeded", "cancelled", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardView:
    """One shard of an iteration, as it was when it was read.

    `status` is "running", "parked", "done" or "failed"; one that does not run because its iteration does not is
    "paused", "cancelled" or "stopped".

    `total` and `time_left` are None unless they can be told: that is where the shard is done, or the only one.
    """

    index: int
    status: str
    done: int
    failed: int
    total: int | None
    rate: float
    time_left: timedelta | None
    hold: str
    step: int
    cursor: str | None
    attempts: int
    error: str
    progressed_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """Return what may be shown to whoever may see the shards, ready for JSON: no key, and no error."""
        return {
            "index": self.index,
            "status": self.status,
            "done": self.done,
            "failed": self.failed,
            "total": self.total,
            "rate": round(self.rate, 3),
            "time_left": to_seconds(self.time_left),
            "hold": self.hold,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an iteration is.

    Args:
        status: as of the iteration; "waiting": its start has not run yet.
        done: entities done.
        failed: entities given up.
        total: entities at the start, or None where nobody counted.
        rate: entities a second: of late, and of an iteration that has ended on average.
        time_left: the time it takes at this rate, or None where that cannot be told.
        hold: why it is held back, or "".
        shards: a view of each.
    """

    status: str = "waiting"
    done: int = 0
    failed: int = 0
    total: int | None = None
    rate: float = 0.0
    time_left: timedelta | None = None
    hold: str = ""
    shards: tuple[ShardView, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more will come, unless somebody resumes it."""
        return self.status in ENDED

    @property
    def share(self) -> float | None:
        """Return how much of it is done, from 0 to 1, or None where that cannot be told."""
        if self.status == "succeeded":
            return 1.0
        if self.total is None:
            return None
        return min(1.0, (self.done + self.failed) / self.total) if self.total else 0.0

    def as_dict(self, *, shards: bool = False) -> dict[str, Any]:
        """Return it ready for JSON.

        Args:
            shards: whether the shards, and why they are held back, are part of it.
        """
        values: dict[str, Any] = {
            "status": self.status,
            "ended": self.has_ended,
            "done": self.done,
            "failed": self.failed,
            "total": self.total,
            "share": None if self.share is None else round(self.share, 4),
            "rate": round(self.rate, 3),
            "time_left": to_seconds(self.time_left),
            "held": bool(self.hold),
        }
        if shards:
            values |= {"hold": self.hold, "shards": [shard.as_dict() for shard in self.shards]}
        return values


def read_progress(iteration_id: str) -> Progress:
    """Return how far an iteration is; status "waiting" where there is none, or not yet. Cheap enough to be polled."""
    found = get_state().read_progress(iteration_id)
    return Progress() if found is None else judge_progress(*found)


def judge_progress(record: IterationRecord, shards: Iterable[ShardRecord]) -> Progress:
    """Return what the records of an iteration and its shards, as they were read just now, tell of its progress.

    Args:
        record: the iteration.
        shards: its shards; that of `finalize`, which has no entities, is left out where the options tell which it is.
    """
    number, now = record.options.get("shards"), get_state().now()
    shards = [shard for shard in shards if number is None or shard.index < number]
    done = record.options.get("done", sum(shard.done for shard in shards))
    failed = record.options.get("failed", sum(shard.failed for shard in shards))
    works = record.status == "running"
    rates = [judge_rate(shard, now) if works and shard.status == "running" else 0.0 for shard in shards]
    rate = sum(rates) if record.status not in ENDED else _average(record, shards, done + failed)
    left = None if record.total is None else max(0, record.total - done - failed)
    hold = next((shard.hold for shard in shards if works and shard.status == "running" and shard.hold), "")
    views = [
        _view(shard, record.status, rate, record.total if len(shards) == 1 else None)
        for shard, rate in zip(shards, rates, strict=True)
    ]
    return Progress(
        status=record.status,
        done=done,
        failed=failed,
        total=record.total,
        rate=rate,
        # Nobody knows how long it will be held back.
        time_left=_time_left(record.status == "succeeded", left if works and not hold else None, rate),
        hold=hold,
        shards=tuple(views),
    )


def next_rate(rate: float, done: int, seconds: float, age: float) -> float:
    """Return the rate after another batch: the mean over all time, in which what is longer ago counts for less.

    Args:
        rate: the rate before.
        done: entities of the batch.
        seconds: since the batch before ended.
        age: seconds since the first batch began: a mean over less than the period is one over all of them.
    """
    # A clock that was set back, or did not move between two batches, must not make rates beyond all measure.
    seconds = max(seconds, 1e-3)
    share = math.expm1(-seconds / PERIOD) / math.expm1(-max(age, seconds) / PERIOD)
    return rate + (done / seconds - rate) * share


def judge_rate(shard: ShardRecord, now: datetime) -> float:
    """Return the rate of a shard as of now: what has made no progress for longer than it should take has less.

    Args:
        shard: one that works.
        now: by the state's clock.
    """
    if shard.progressed_at is None or shard.rate <= 0:
        return 0.0
    idle = (now - shard.progressed_at).total_seconds()
    usual = (shard.batch_size or 0) / shard.rate
    return shard.rate * math.exp(-max(0.0, idle - max(PERIOD, 2 * usual)) / PERIOD)


def to_seconds(span: timedelta | None) -> float | None:
    """Return a span for JSON."""
    return None if span is None else round(span.total_seconds(), 3)


#: What a shard is that would run, if its iteration did.
_STILL: Final = {"paused": "paused", "cancelled": "cancelled", "failed": "stopped"}


def _view(shard: ShardRecord, status: str, rate: float, total: int | None) -> ShardView:
    settled = shard.done + shard.failed
    is_done = shard.status == "done"
    return ShardView(
        index=shard.index,
        status=_STILL.get(status, "running") if shard.status == "running" else shard.status,
        done=shard.done,
        failed=shard.failed,
        total=settled if is_done else total,
        rate=rate,
        time_left=_time_left(is_done, None if total is None or shard.hold else max(0, total - settled), rate),
        hold=shard.hold,
        step=shard.step,
        cursor=shard.cursor,
        attempts=shard.attempts,
        error=shard.error,
        progressed_at=shard.progressed_at,
    )


def _time_left(is_done: bool, left: int | None, rate: float) -> timedelta | None:
    if is_done or left == 0:
        return timedelta(0)
    if left is None or rate * FURTHEST.total_seconds() < left:
        return None
    return timedelta(seconds=left / rate)


def _average(record: IterationRecord, shards: list[ShardRecord], worked: int) -> float:
    """Return entities a second from the beginning to the last progress."""
    moments = [shard.progressed_at for shard in shards if shard.progressed_at is not None]
    if not shards and record.finished is not None:
        moments = [record.finished]
    if not moments or record.created is None:
        return 0.0
    return worked / max((max(moments) - record.created).total_seconds(), 1e-3)
