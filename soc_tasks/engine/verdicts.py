"""What becomes of a task after an attempt: pure decisions, written down by the store."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

from soc_tasks.conf import get_queues
from soc_tasks.engine.backoff import busy_delay, is_exhausted, retry_delay
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.rows import Leased
from soc_tasks.values import DEFAULT_RETRY, MAX_SECONDS, Answer, RetryOptions

#: What is noted where a task was given up without an answer.
NO_ANSWER: Final = 0
#: What is told where a task waited for too long to be tried (again).
EXPIRED: Final = -1
#: What is noted where an attempt ran past its deadline.
TIMED_OUT: Final = 504


#: Seconds after which a task is tried again whose end could not be written.
PUT_OFF: Final = 60


class Outcome(Enum):
    """What the store does with the row."""

    DONE = auto()
    RETRY = auto()
    #: It ran into another attempt: later, with all that is known of it; a suspect stays one.
    BUSY = auto()
    EXHAUSTED = auto()
    #: It was claimed and not run, or cut short by the end of the process: back as it was.
    RETURNED = auto()


class Verdict(NamedTuple):
    """What becomes of `leased`; the other fields are its new columns."""

    leased: Leased
    outcome: Outcome
    due: int = 0
    attempts: int = 0
    responses: int = 0
    first_attempt: int | None = None
    status: int | None = None
    busy: int = 0


def retry_options(leased: Leased) -> RetryOptions:
    """Return the retry options in force: the task's own over its queue's over the default."""
    queue = get_queues().get(leased.queue)
    options = DEFAULT_RETRY if queue is None else queue.retry
    own = leased.retry if leased.options else None
    return options if own is None else own.over(options)


def is_last_attempt(leased: Leased, now: int) -> bool:
    """Tell whether a failure of the attempt that starts `now` would be the last."""
    return is_exhausted(leased.attempts + 1, leased.first_attempt or now, now, retry_options(leased))


def judge(leased: Leased, answer: Answer, started: int, now: int) -> Verdict:
    """Decide what becomes of a task.

    Args:
        leased: the task.
        answer: what the site answered; status 504 without a response stands for an attempt that was abandoned.
        started: when this attempt began, microseconds.
        now: when it ended.
    """
    if 200 <= answer.status < 300:
        return Verdict(leased, Outcome.DONE)
    if answer.outcome == "busy":
        busy = leased.busy + 1
        return Verdict(leased, Outcome.BUSY, due=now + round(busy_delay(busy) * SECOND), busy=busy)
    attempts = leased.attempts + 1
    first = leased.first_attempt or started
    options = retry_options(leased)
    # As of its start: that is what the view was told, which keeps the letter of a last attempt.
    if is_exhausted(attempts, first, started, options):
        return Verdict(leased, Outcome.EXHAUSTED, attempts=attempts, status=answer.status)
    delay = retry_delay(attempts, options) if answer.countdown is None else min(max(0.0, answer.countdown), MAX_SECONDS)
    return Verdict(
        leased,
        Outcome.RETRY,
        due=now + round(delay * SECOND),
        attempts=attempts,
        # An attempt that was abandoned had no response (Cloud Tasks counts likewise).
        responses=leased.responses + (answer.status != TIMED_OUT),
        first_attempt=first,
        status=answer.status,
    )


def put_off(leased: Leased, now: int) -> Verdict:
    """Return the verdict on a task whose own cannot be written: uncounted, and later, lest it go round and round."""
    return Verdict(leased, Outcome.BUSY, due=now + PUT_OFF * SECOND, busy=leased.busy + 1)
