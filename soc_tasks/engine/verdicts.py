"""What becomes of a task after an attempt: pure decisions, written down by the store."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from soc_tasks.conf import get_queues
from soc_tasks.engine.answers import OVERLOADED
from soc_tasks.engine.backoff import LONGEST_RETRY_AFTER, busy_delay, is_exhausted, retry_delay, unknown_delay
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.rows import Leased
from soc_tasks.values import DEFAULT_RETRY, MAX_SECONDS, Answer, QueueOptions, RetryOptions

#: Options of queues by name; None: those of the settings.
Options = Mapping[str, QueueOptions] | None

#: What is noted where a task was given up without an answer.
NO_ANSWER: Final = 0
#: What is told where a task waited for too long to be tried (again).
EXPIRED: Final = -1
#: What is told where no worker knew a task for too long.
UNKNOWN: Final = -2
#: What is noted where an attempt ran past its deadline.
TIMED_OUT: Final = 504

#: Seconds for which a task that no worker knows waits for one that does (ours: a deploy of new code takes less).
UNKNOWN_FOR: Final = 86400
#: Seconds after which a task is tried again whose end could not be written.
PUT_OFF: Final = 60


class Outcome(Enum):
    """What the store does with the row."""

    DONE = auto()
    RETRY = auto()
    #: It ran into another attempt: later, with all that is known of it; a suspect stays one.
    BUSY = auto()
    #: This site does not know its URL or its function: later, uncounted, for a worker of a newer release.
    UNKNOWN = auto()
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
    unknown: int | None = None
    #: How long the attempt took.
    seconds: float = 0.0
    note: str = ""
    #: Whether such an answer slows the queue down.
    presses: bool = True
    #: Whether the view has seen to it that the task is a dead letter.
    dead: bool = False

    @property
    def is_overload(self) -> bool:
        """Tell whether the answer asks for the whole queue to be slowed down."""
        return self.presses and self.status in OVERLOADED and self.outcome in {Outcome.RETRY, Outcome.EXHAUSTED}


def retry_options(leased: Leased, queues: Options = None) -> RetryOptions:
    """Return the retry options in force: the task's own over its queue's over the default."""
    queue = (get_queues() if queues is None else queues).get(leased.queue)
    options = DEFAULT_RETRY if queue is None else queue.retry
    own = leased.retry if leased.options else None
    return options if own is None else own.over(options)


def is_last_attempt(leased: Leased, now: int, queues: Options = None) -> bool:
    """Tell whether a failure of the attempt that starts `now` would be the last."""
    return is_exhausted(leased.attempts + 1, leased.first_attempt or now, now, retry_options(leased, queues))


def judge(leased: Leased, answer: Answer, started: int, now: int, queues: Options = None) -> Verdict:
    """Decide what becomes of a task.

    Args:
        leased: the task.
        answer: what the site answered; status 504 without a response stands for an attempt that was abandoned.
        started: when this attempt began, microseconds.
        now: when it ended.
        queues: the options of queues.
    """
    if 200 <= answer.status < 300:
        return Verdict(leased, Outcome.DONE, seconds=max(0, now - started) / SECOND, dead=answer.outcome == "dead")
    if answer.outcome == "busy":
        busy = leased.busy + 1
        return Verdict(leased, Outcome.BUSY, due=now + round(busy_delay(busy) * SECOND), busy=busy)
    if answer.outcome == "unknown":
        return _judge_unknown(leased, now)
    attempts = leased.attempts + 1
    first = leased.first_attempt or started
    options = retry_options(leased, queues)
    seconds = max(0, now - started) / SECOND
    # As of its start: that is what the view was told, which keeps the letter of a last attempt.
    if is_exhausted(attempts, first, started, options):
        return Verdict(
            leased,
            Outcome.EXHAUSTED,
            attempts=attempts,
            status=answer.status,
            seconds=seconds,
            presses=answer.presses,
        )
    return Verdict(
        leased,
        Outcome.RETRY,
        due=_next_try(leased, answer, attempts, options, now),
        attempts=attempts,
        # An attempt that was abandoned had no response (Cloud Tasks counts likewise).
        responses=leased.responses + (answer.status != TIMED_OUT),
        first_attempt=first,
        status=answer.status,
        seconds=seconds,
        note=leased.note if answer.note is None else answer.note,
        presses=answer.presses,
    )


def _next_try(leased: Leased, answer: Answer, attempts: int, options: RetryOptions, now: int) -> int:
    """Return when a task that failed `now` is tried again."""
    if answer.countdown is not None:
        return now + round(min(max(0.0, answer.countdown), MAX_SECONDS) * SECOND)
    # One that was to run at once is tried again as from that call (Cloud Tasks v2, RunTask), but not before now; a
    # call that is yet to come was made before the clock was set back.
    since = min(-leased.due, now) if leased.due < 0 else now
    due = max(now, since + round(retry_delay(attempts, options) * SECOND))
    if answer.retry_after is None:
        return due
    return max(due, now + round(min(max(0.0, answer.retry_after), LONGEST_RETRY_AFTER) * SECOND))


def _judge_unknown(leased: Leased, now: int) -> Verdict:
    """Decide what becomes of a task that this site does not know: it was no attempt."""
    since = leased.unknown or now
    if now - since >= UNKNOWN_FOR * SECOND:
        return Verdict(leased, Outcome.EXHAUSTED, attempts=leased.attempts, status=UNKNOWN)
    delay = unknown_delay((now - since) / SECOND)
    return Verdict(leased, Outcome.UNKNOWN, due=now + round(delay * SECOND), unknown=since)


def put_off(leased: Leased, now: int) -> Verdict:
    """Return the verdict on a task whose own cannot be written: uncounted, and later, lest it go round and round."""
    return Verdict(leased, Outcome.BUSY, due=now + PUT_OFF * SECOND, busy=leased.busy + 1)
