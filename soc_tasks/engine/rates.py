"""How much of which queue may be claimed: pause, token bucket, concurrency. Pure arithmetic.

A queue without options takes everything. `due = 0` marks a task that is to run at once, past all of this.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import QueueView
from soc_tasks.values import QueueOptions

#: Bound of `due` for tasks that are to run at once.
AT_ONCE: Final = 0


class Share(NamedTuple):
    """What may be claimed of a queue: `most` of its tasks that are due until `until`."""

    queue: str
    until: int
    most: int


def burst_size(rate: float) -> int:
    """Return how many tokens the bucket of a queue holds; Cloud Tasks derives it likewise, as far as is known."""
    return max(10, math.ceil(rate / 5))


def refill(view: QueueView, rate: float, now: int) -> float:
    """Return the tokens that the bucket of a queue holds now."""
    size = float(burst_size(rate))
    if view.filled == 0:
        return size
    # A clock that was set back must neither drain the bucket nor fill it; the store then dates the bucket back as well.
    return min(size, view.tokens + max(0, now - view.filled) * rate / SECOND)


def is_limited(name: str, options: Mapping[str, QueueOptions]) -> bool:
    """Tell whether a queue has a rate or a limit of tasks at one time."""
    queue = options.get(name)
    return queue is not None and (queue.rate_per_second is not None or queue.rate_max_concurrent is not None)


def allot(
    views: Iterable[QueueView],
    limit: int,
    now: int,
    options: Mapping[str, QueueOptions],
    running: Mapping[str, int],
) -> list[Share]:
    """Say how much may be claimed of each queue, at most `limit` of each.

    Args:
        views: the queues that have waiting tasks.
        limit: how many tasks are wanted in all.
        now: microseconds.
        options: the queues' options.
        running: how many tasks of limited queues run.
    """
    shares = []
    # Where there are more queues than one claim takes, those that wait longest come first.
    for view in sorted(views, key=lambda view: view.due):
        if view.due > now:
            continue
        if view.due <= AT_ONCE:
            shares.append(Share(view.name, AT_ONCE, limit))
        if view.paused:
            continue
        most = limit
        if is_limited(view.name, options):
            queue = options[view.name]
            if queue.rate_per_second is not None:
                most = min(most, int(refill(view, queue.rate_per_second, now)))
            if queue.rate_max_concurrent is not None:
                most = min(most, queue.rate_max_concurrent - running.get(view.name, 0))
        if most > 0:
            shares.append(Share(view.name, now, most))
    return shares


def next_moment(
    views: Iterable[QueueView], now: int, options: Mapping[str, QueueOptions], running: Mapping[str, int]
) -> int | None:
    """Return when something may be claimed next: a past moment means now, None not before something changes.

    Args:
        views: the queues that have waiting tasks.
        now: microseconds.
        options: the queues' options.
        running: how many tasks of limited queues run.
    """
    moments = []
    for view in views:
        if view.due <= AT_ONCE:
            return AT_ONCE
        if view.paused:
            continue
        moment = view.due
        queue = options.get(view.name) or QueueOptions(name=view.name)
        if queue.rate_max_concurrent is not None and running.get(view.name, 0) >= queue.rate_max_concurrent:
            continue
        if queue.rate_per_second is not None:
            missing = 1.0 - refill(view, queue.rate_per_second, now)
            if missing > 0:
                moment = max(moment, now + math.ceil(missing / queue.rate_per_second * SECOND))
        moments.append(moment)
    return min(moments, default=None)
