"""When a failed task is tried again, and when no more: pure arithmetic, after Cloud Tasks.

The delay doubles `max_doublings` times, then grows by the last doubled step, and never passes `max_backoff`.
It is counted from the time of the failure. Both documented sequences are tests.
"""

from __future__ import annotations

import math
from typing import Final

from soc_tasks.engine.clock import SECOND
from soc_tasks.values import DEFAULT_RETRY, RetryOptions

#: Waits after "busy" answers, which count as no attempt: they grow to the last of these.
BUSY_DELAYS: Final = (0.1, 0.2, 0.4, 0.7, 1.0)
#: Waits after "unknown" answers, which count as no attempt either, ours: doubled from the first to the second of these.
UNKNOWN_DELAYS: Final = (1.0, 60.0)
#: Seconds of a `Retry-After` that are honoured at most, ours: the default's longest wait (Cloud Tasks "considers" it).
LONGEST_RETRY_AFTER: Final = 3600.0


def retry_delay(retry: int, options: RetryOptions) -> float:
    """Return the seconds between a failure and the retry that follows it.

    Args:
        retry: 1 for the first retry.
        options: the task's retry options; those not set take the default.
    """
    low = _or_default(options.min_backoff, DEFAULT_RETRY.min_backoff)
    high = _or_default(options.max_backoff, DEFAULT_RETRY.max_backoff)
    doublings = _or_default(options.max_doublings, DEFAULT_RETRY.max_doublings)
    if not 0 < low < high:
        return float(min(low, high))
    doubled = min(retry - 1, int(doublings))
    # By logarithm first: the powers themselves outgrow every float.
    if doubled >= math.log2(high) - math.log2(low):
        return float(high)
    return float(min(math.ldexp(low, doubled) * max(1, retry - doubled), high))


def busy_delay(times: int) -> float:
    """Return the seconds to wait after the answer "busy" came for the `times`-th time in a row."""
    return BUSY_DELAYS[min(max(times, 1), len(BUSY_DELAYS)) - 1]


def unknown_delay(age: float) -> float:
    """Return the seconds to wait after no worker knew a task.

    Args:
        age: seconds since that was first so. To wait once more for as long doubles the wait, and needs no count.
    """
    shortest, longest = UNKNOWN_DELAYS
    return min(max(age, shortest), longest)


def is_exhausted(attempts: int, first_attempt: int, started: int, options: RetryOptions) -> bool:
    """Tell whether a task that failed is not tried again.

    Where both limits are set, both must be passed; where only one is, that one decides.

    Args:
        attempts: how many attempts were made.
        first_attempt: when the first one started, in microseconds.
        started: when the last one started, in microseconds.
        options: the task's retry options; those not set take the default.
    """
    most = _or_default(options.max_attempts, DEFAULT_RETRY.max_attempts)
    longest = options.max_retry_duration or 0
    out_of_attempts = most >= 0 and attempts >= most
    out_of_time = longest > 0 and started - first_attempt >= longest * SECOND
    if most >= 0 and longest > 0:
        return out_of_attempts and out_of_time
    return out_of_attempts or out_of_time


def _or_default(value: float | None, default: float | None) -> float:
    return value if value is not None else default or 0
