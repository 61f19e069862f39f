"""Queues that are held below their rate for a while: slow start and back-pressure. Pure arithmetic.

A queue may have a cap, in tasks a second. It doubles at a steady pace until it reaches the queue's own rate, and is
gone then. One that was idle starts at a low cap; one whose target answers that it is overloaded has its pace halved.
Cloud Tasks does both and publishes no number: the constants are ours.
"""

from __future__ import annotations

import math
from typing import Final

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import QueueView

#: What a cap grows to where the queue has no rate: Cloud Tasks' default and maximum (RateLimits).
TOP_RATE: Final = 500.0

#: Slow start, ours: a queue with a higher rate than this, in tasks a second, that started nothing for so many seconds
#: begins at this rate, which doubles in so many seconds.
SLOW_START: Final = 10.0
IDLE: Final = 60.0
SLOW_START_DOUBLING: Final = 1.0

#: Back-pressure, ours: seconds between two halvings at least; seconds in which the pace doubles again without further
#: pressure, more than most answers take, so that it is felt in time that the target has enough; and tasks a second
#: below which nothing is held.
HALVE_EVERY: Final = 1.0
RECOVERY_DOUBLING: Final = 10.0
LEAST_RATE: Final = 1 / 60
#: Seconds for which a running task is counted on at least: what is claimed ahead runs within that (pace.AHEAD).
SHORTEST_RUN: Final = 0.05

#: Seconds of its cap that a bucket holds at most, so that what was held back does not come as a burst.
CAPPED_BURST: Final = 1.0


def burst_size(rate: float) -> int:
    """Return how many tokens the bucket of a queue holds; Cloud Tasks derives it likewise, as far as is known."""
    return max(10, math.ceil(rate / 5))


def pace_at(view: QueueView, rate: float, now: int) -> float:
    """Return the tasks a second that a queue may start now: its cap, or its rate.

    Args:
        view: the queue.
        rate: its own rate.
        now: microseconds.
    """
    if view.cap is None or _age(view, now) >= _time_to_rate(view, rate):
        return rate
    return float(view.cap * 2.0 ** (_age(view, now) / view.doubling))


def bucket_size(view: QueueView, rate: float, now: int) -> float:
    """Return how many tokens the bucket of a queue holds now (arguments as of `pace_at`)."""
    size, pace = float(burst_size(rate)), pace_at(view, rate, now)
    return size if pace >= rate else max(1.0, min(size, pace * CAPPED_BURST))


def count_tokens(view: QueueView, rate: float, now: int) -> float:
    """Return how many tokens flowed into the bucket of a queue since it was looked at (arguments as of `pace_at`)."""
    passed = max(0, now - view.filled) / SECOND
    if view.cap is None:
        return passed * rate
    end, full = _age(view, now), _time_to_rate(view, rate)
    start = max(0.0, end - passed)
    return _grown(view, min(start, full), min(end, full)) + rate * max(0.0, end - max(start, full))


def time_for(tokens: float, view: QueueView, rate: float, now: int) -> float:
    """Return the seconds from now in which so many tokens flow into the bucket.

    Args:
        tokens: how many.
        view: the queue.
        rate: its own rate.
        now: microseconds.
    """
    if view.cap is None:
        return tokens / rate
    start, full = _age(view, now), _time_to_rate(view, rate)
    if start >= full:
        return tokens / rate
    growing = _grown(view, start, full)
    if tokens >= growing:
        return full - start + (tokens - growing) / rate
    grown = 2.0 ** (start / view.doubling) + tokens * math.log(2) / (view.cap * view.doubling)
    return float(view.doubling * math.log2(grown) - start)


def start_slowly(view: QueueView, rate: float, now: int) -> QueueView:
    """Return the view of a queue with a cap if it was idle, else as it was (arguments as of `pace_at`)."""
    idle = view.filled == 0 or now - view.filled >= IDLE * SECOND
    if not idle or pace_at(view, rate, now) <= SLOW_START:
        return view
    return view._replace(
        tokens=SLOW_START * CAPPED_BURST, filled=now, cap=SLOW_START, capped=now, doubling=SLOW_START_DOUBLING
    )


def halve(view: QueueView, rate: float, now: int, running: int, seconds: float) -> QueueView | None:
    """Return the view of a queue whose target is overloaded, at half its pace; None: it was halved a moment ago.

    Half of what was really started, as far as that can be told from the tasks that run and the time that they take:
    a queue that is far below its rate would feel nothing else.

    Args:
        view: the queue.
        rate: its own rate.
        now: microseconds.
        running: how many of its tasks run.
        seconds: how long the one took that was refused.
    """
    pressed = view.cap is not None and view.doubling == RECOVERY_DOUBLING
    # A clock that was set back must not keep the queue from being halved.
    if pressed and 0 <= now - view.capped < HALVE_EVERY * SECOND:
        return None
    real = running / max(seconds, SHORTEST_RUN)
    cap = max(LEAST_RATE, min(pace_at(view, rate, now), max(SLOW_START, real)) / 2)
    if cap >= rate:
        return None
    # An overloaded target has a pause first.
    return view._replace(tokens=0.0, filled=now, cap=cap, capped=now, doubling=RECOVERY_DOUBLING)


def _age(view: QueueView, now: int) -> float:
    """Return the seconds for which a cap has grown."""
    return max(0, now - view.capped) / SECOND


def _time_to_rate(view: QueueView, rate: float) -> float:
    """Return after how many seconds a cap is as high as the queue's own rate."""
    return max(0.0, view.doubling * math.log2(rate / view.cap)) if view.cap else 0.0


def _grown(view: QueueView, start: float, end: float) -> float:
    """Return the tokens that flow between two ages of a cap, while it doubles."""
    if end <= start or view.cap is None:
        return 0.0
    doubling = view.doubling
    return float(view.cap * doubling / math.log(2) * (2.0 ** (end / doubling) - 2.0 ** (start / doubling)))
