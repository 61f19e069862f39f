"""One attempt: a leased task becomes a call with a delivery, and the call's answer."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

from django.core.signals import got_request_exception
from django.http import HttpRequest

from soc_tasks import logs
from soc_tasks.engine.clock import SECOND, Clock, from_micros
from soc_tasks.engine.store.rows import Leased
from soc_tasks.engine.verdicts import TIMED_OUT, Options, is_last_attempt
from soc_tasks.meta import Meta
from soc_tasks.values import DELIVERY_KEY, META_HEADER, Answer, Delivery, Task

logger = logging.getLogger("soc_tasks.engine")

#: Makes the call.
Dispatch = Callable[[Task, Delivery], Answer]

#: Seconds that an attempt may take where the task does not say (Cloud Tasks: 10 minutes).
DEFAULT_DEADLINE: Final = 600.0
#: What stands in a line as the error of an attempt that gave no answer in time.
TIMED_OUT_NAME: Final = "TimedOut"


class Job:
    """An attempt on its way through a thread."""

    __slots__ = ("answer", "began", "deadline", "delivery", "ended", "leased", "logged", "seconds", "started")

    def __init__(self, leased: Leased) -> None:
        self.leased = leased
        #: Wall time of start and end, microseconds.
        self.started = self.ended = 0
        #: Monotonic time of the start, and when it is taken for hung.
        self.began = self.deadline = 0.0
        self.seconds = 0.0
        self.answer: Answer | None = None
        self.delivery: Delivery | None = None
        #: Whether its line is in the log.
        self.logged = False


def make_attempt(
    job: Job, dispatch: Dispatch, clock: Clock, stopping: Callable[[], bool], queues: Options = None
) -> None:
    """Make the call of a job, and note its answer and its times.

    Args:
        job: the attempt.
        dispatch: makes the call.
        clock: tells the times.
        stopping: tells the view whether the worker wants to end.
        queues: the options of queues.
    """
    leased = job.leased
    job.started = started = clock.now()
    job.began = began = clock.monotonic()
    broken = None
    try:
        seconds = leased.settings.get("dispatch_deadline", DEFAULT_DEADLINE) if leased.options else DEFAULT_DEADLINE
        # What keeps its deadline by itself is not to be taken for hung while it does.
        job.deadline = began + seconds + getattr(dispatch, "patience", 0.0)
        job.delivery = delivery = Delivery(
            queue=leased.queue,
            name=leased.name,
            retry_count=leased.attempts,
            execution_count=leased.responses,
            eta=from_micros(abs(leased.due) or started),
            previous_status=leased.status,
            is_last_attempt=is_last_attempt(leased, started, queues),
            deadline=began + seconds,
            stopping=stopping,
            outcomes=[],
            note=leased.note,
        )
        answer = dispatch(leased.to_task(), delivery)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        # Whatever a view does (sys.exit() too), its thread goes on.
        logger.exception("task %s of queue %s broke its dispatch", leased.name, leased.queue)
        answer, broken = Answer(status=500), logs.name_error(error)
    job.seconds = clock.monotonic() - began
    job.ended = clock.now()
    log_attempt(job, answer, broken)
    # Last: an attempt that has an answer is complete.
    job.answer = answer


def log_attempt(job: Job, answer: Answer, error: str | None = None) -> None:
    """Write the line of an attempt; whoever comes first does: its own thread, or the one that gave it up.

    Args:
        job: the attempt, with its times.
        answer: what it was answered with.
        error: what ended it in place of an answer.
    """
    if job.logged or not logs.logger.isEnabledFor(logging.INFO):
        return
    job.logged = True
    leased, delivery = job.leased, job.delivery
    if error is None and delivery is not None and delivery.failures:
        error = logs.name_error(delivery.failures[-1])
    try:
        logs.log_task(
            queue=leased.queue,
            task=leased.name,
            path=leased.path,
            attempt=leased.attempts + 1,
            outcome=_name_outcome(delivery, answer),
            status=answer.status,
            seconds=job.seconds,
            wait=(job.started - (abs(leased.due) or job.started)) / SECOND,
            error=error,
            start=leased.start_id or _read_start(leased),
            function=delivery.functions[0] if delivery is not None and delivery.functions else None,
            level=logging.WARNING if error == TIMED_OUT_NAME else logging.INFO,
        )
    except Exception:
        # A filter of the site's broke, say: its line is lost, and not the thread that would have written it.
        if logging.raiseExceptions:
            traceback.print_exc()


def _read_start(leased: Leased) -> str | None:
    """Return the start id of a task that came by the API, whose headers alone have it."""
    try:
        return Meta.from_header(json.loads(leased.headers)[META_HEADER]).start_id
    except (KeyError, ValueError):
        return None


def _name_outcome(delivery: Delivery | None, answer: Answer) -> str:
    if delivery is not None and delivery.outcomes and answer.status != TIMED_OUT:
        return delivery.outcomes[-1]
    if answer.outcome in ("dead", "busy", "unknown"):
        return answer.outcome
    if 200 <= answer.status < 300:
        return "done"
    return "dead" if delivery is not None and delivery.is_last_attempt else "retry"


def _note_exception(request: HttpRequest | None = None, **_: Any) -> None:
    """Keep what a plain view or a middleware raised; decorated views tell of it themselves."""
    delivery = None if request is None else request.META.get(DELIVERY_KEY)
    error = sys.exc_info()[1]
    if isinstance(delivery, Delivery) and delivery.outcomes is not None and error is not None:
        delivery.failures.append(error)


got_request_exception.connect(_note_exception, dispatch_uid="soc_tasks.engine.attempts")
