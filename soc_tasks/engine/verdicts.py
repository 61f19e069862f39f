"""What becomes of a task after an attempt: pure decisions, written down by the store."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from soc_tasks.conf import get_queues
from soc_tasks.engine.backoff import busy_delay, is_exhausted, retry_delay
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.rows import Leased
from soc_tasks.values import DEFAULT_RETRY, Answer, RetryOptions

#: What is noted where a task was given up without an answer.
NO_ANSWER = 0
#: What is noted where an attempt ran past its deadline.
TIMED_OUT = 504


class Outcome(Enum):
    """What the store does with the row."""

    DONE = auto()
    RETRY = auto()
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
        return Verdict(
            leased,
            Outcome.RETRY,
            due=now + round(busy_delay(leased.busy + 1) * SECOND),
            attempts=leased.attempts,
            responses=leased.responses,
            first_attempt=leased.first_attempt,
            status=leased.status,
            busy=leased.busy + 1,
        )
    attempts = leased.attempts + 1
    first = leased.first_attempt or started
    options = retry_options(leased)
    if is_exhausted(attempts, first, now, options):
        return Verdict(leased, Outcome.EXHAUSTED, attempts=attempts, status=answer.status)
    delay = retry_delay(attempts, options) if answer.countdown is None else max(0.0, answer.countdown)
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


#: Decides; tests may pass another.
Judge = Callable[[Leased, Answer, int, int], Verdict]
