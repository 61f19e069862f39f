"""How much of which queue may be claimed: pause, token bucket, concurrency, caps. Pure arithmetic.

A queue without options takes everything, unless its target is overloaded. `due <= 0` marks a task that is to run at
once, past all of this: it takes no token either, but counts among those that run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from soc_tasks.engine.caps import TOP_RATE, bucket_size, count_tokens, pace_at, start_slowly, time_for
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import QueueView
from soc_tasks.values import QueueOptions

#: Bound of `due` for tasks that are to run at once; below it stands when that was asked for.
AT_ONCE: Final = 0
#: What a whole token may be short of, so that sums of floats are whole when they should be.
ROUNDING: Final = 1e-6


class Share(NamedTuple):
    """What may be claimed of a queue: `most` of its tasks that are due until `until`."""

    queue: str
    until: int
    most: int


def is_limited(view: QueueView, options: Mapping[str, QueueOptions]) -> bool:
    """Tell whether there is a limit to what may be claimed of a queue."""
    if view.cap is not None:
        return True
    queue = options.get(view.name)
    return queue is not None and (queue.rate_per_second is not None or queue.rate_max_concurrent is not None)


def find_rate(view: QueueView, options: Mapping[str, QueueOptions]) -> float | None:
    """Return the rate at which the bucket of a queue fills when nothing holds it; None: it needs no bucket."""
    queue = options.get(view.name)
    if queue is not None and queue.rate_per_second is not None:
        return queue.rate_per_second
    return None if view.cap is None else TOP_RATE


def refill(view: QueueView, options: Mapping[str, QueueOptions], now: int) -> QueueView:
    """Return the view of a queue as of `now`: its bucket filled, its cap begun if it was idle, or gone if it is over.

    Args:
        view: the queue, as it was kept.
        options: the queues' options.
        now: microseconds.
    """
    rate = find_rate(view, options)
    if rate is None:
        return view
    # A clock that was set back must neither drain the bucket nor fill it, nor hold the queue until it has caught up.
    view = view._replace(capped=min(view.capped, now))
    if options.get(view.name, _PLAIN).rate_per_second is not None:
        view = start_slowly(view, rate, now)
    size = bucket_size(view, rate, now)
    tokens = size if view.filled == 0 else min(size, view.tokens + count_tokens(view, rate, now))
    over = view.cap is not None and pace_at(view, rate, now) >= rate
    return view._replace(tokens=tokens, filled=now, cap=None if over else view.cap)


def allot(
    views: Iterable[QueueView],
    limit: int,
    now: int,
    options: Mapping[str, QueueOptions],
    running: Mapping[str, int],
    each: int | None = None,
) -> list[Share]:
    """Say how much may be claimed of each queue, at most `limit` of each.

    Args:
        views: the queues that have waiting tasks; of limited ones as of now (`refill`).
        limit: how many tasks are wanted in all.
        now: microseconds.
        options: the queues' options.
        running: how many tasks of limited queues run.
        each: how many are wanted of each queue at most.
    """
    shares = []
    limit = limit if each is None else min(limit, each)
    # Where there are more queues than one claim takes, those that wait longest come first.
    for view in sorted(views, key=lambda view: view.due):
        if view.due > now:
            continue
        if view.due <= AT_ONCE:
            shares.append(Share(view.name, AT_ONCE, limit))
        if view.paused:
            continue
        most = limit
        if is_limited(view, options):
            if find_rate(view, options) is not None:
                most = min(most, int(view.tokens + ROUNDING))
            together = options.get(view.name, _PLAIN).rate_max_concurrent
            if together is not None:
                most = min(most, together - running.get(view.name, 0))
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
        if is_limited(view, options):
            together = options.get(view.name, _PLAIN).rate_max_concurrent
            if together is not None and running.get(view.name, 0) >= together:
                continue
            moment = max(moment, _next_token(view, options, now))
        moments.append(moment)
    return min(moments, default=None)


def _next_token(view: QueueView, options: Mapping[str, QueueOptions], now: int) -> int:
    """Return when the bucket of a queue holds a token, if not now; 0: now."""
    full = refill(view, options, now)
    rate = find_rate(full, options)
    if rate is None or full.tokens + ROUNDING >= 1:
        return 0
    return now + math.ceil(time_for(1.0 - full.tokens, full, rate, now) * SECOND)


_PLAIN: Final = QueueOptions(name="plain")
