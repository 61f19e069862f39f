"""One attempt: a leased task becomes a call with a delivery, and the call's answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from soc_tasks.engine.clock import Clock, from_micros
from soc_tasks.engine.store.rows import Leased
from soc_tasks.engine.verdicts import is_last_attempt
from soc_tasks.values import Answer, Delivery, Task

logger = logging.getLogger("soc_tasks.engine")

#: Makes the call.
Dispatch = Callable[[Task, Delivery], Answer]

#: Seconds that an attempt may take where the task does not say (Cloud Tasks: 10 minutes).
DEFAULT_DEADLINE: Final = 600.0


class Job:
    """An attempt on its way through a thread."""

    __slots__ = ("answer", "began", "deadline", "ended", "leased", "seconds", "started")

    def __init__(self, leased: Leased) -> None:
        self.leased = leased
        #: Wall time of start and end, microseconds.
        self.started = self.ended = 0
        #: Monotonic time of the start, and when it must have ended.
        self.began = self.deadline = 0.0
        self.seconds = 0.0
        self.answer: Answer | None = None


def make_attempt(job: Job, dispatch: Dispatch, clock: Clock, stopping: Callable[[], bool]) -> None:
    """Make the call of a job, and note its answer and its times.

    Args:
        job: the attempt.
        dispatch: makes the call.
        clock: tells the times.
        stopping: tells the view whether the worker wants to end.
    """
    leased = job.leased
    job.started = started = clock.now()
    job.began = began = clock.monotonic()
    try:
        seconds = leased.settings.get("dispatch_deadline", DEFAULT_DEADLINE) if leased.options else DEFAULT_DEADLINE
        job.deadline = began + seconds
        delivery = Delivery(
            queue=leased.queue,
            name=leased.name,
            retry_count=leased.attempts,
            execution_count=leased.responses,
            eta=from_micros(leased.due or started),
            previous_status=leased.status,
            is_last_attempt=is_last_attempt(leased, started),
            deadline=job.deadline,
            stopping=stopping,
        )
        answer = dispatch(leased.to_task(), delivery)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        # Whatever a view does (sys.exit() too), its thread goes on.
        logger.exception("task %s of queue %s broke its dispatch", leased.name, leased.queue)
        answer = Answer(status=500)
    job.seconds = clock.monotonic() - began
    job.ended = clock.now()
    # Last: an attempt that has an answer is complete.
    job.answer = answer
