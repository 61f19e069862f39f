"""Runs a task that was let in, and turns what happened into the answer."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from django.db import OperationalError, connections
from django.http import HttpRequest, HttpResponse

from soc_tasks import logs, signals
from soc_tasks.logic.current import current_task
from soc_tasks.logic.slice_runs import EarlySliceError, describe
from soc_tasks.logic.slices import HandedOverError, take_up
from soc_tasks.meta import read_meta
from soc_tasks.state import get_state, transactions
from soc_tasks.state.base import BusyError, DeadLetter
from soc_tasks.state.locks import is_lock_error
from soc_tasks.state.transactions import find_alias
from soc_tasks.values import COUNTDOWN_HEADER, Delivery, TaskInfo
from soc_tasks.views import responses
from soc_tasks.views.intake import rebuild_task
from soc_tasks.views.repeating import queue_again, queue_for_release, queue_when_free
from soc_tasks.views.responses import Outcome

logger = logging.getLogger("soc_tasks")


class RefusedError(Exception):
    """The view answered with something else than 2xx; raised so that what it wrote is rolled back."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(f"the view answered with {response.status_code}")
        self.countdown: str | None = response.get(COUNTDOWN_HEADER)


class DuplicateError(Exception):
    """An atomic task that ran before."""


class UnknownCallError(Exception):
    """A deferred call names what is not known here; another release may know it."""


def atomic_aliases() -> list[str]:
    """Return the aliases with ATOMIC_REQUESTS, which task views honour inside their error handling."""
    return [alias for alias in connections if connections.settings[alias]["ATOMIC_REQUESTS"]]


def check_answer(answer: Any, view: Any) -> None:
    """Judge what a view returned; None and 2xx are good.

    Raises:
        RefusedError: a response that is not 2xx.
        TypeError: something that is no response.
    """
    if answer is None:
        return
    if not isinstance(answer, HttpResponse) and not hasattr(answer, "status_code"):
        raise TypeError(f"{view!r} returned {answer!r:.100}; a task returns None or an HttpResponse.")
    # Not answer.close(), which tells Django that the request is over: connections would be closed in the midst of it.
    for close in getattr(answer, "_resource_closers", ()):
        with suppress(Exception):
            close()
    if not 200 <= answer.status_code < 300:
        raise RefusedError(answer)


def call_view(view: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a view and judge its answer.

    Raises:
        RefusedError: it answered with something else than 2xx.
        RuntimeError: it called `sys.exit()`, which must end the attempt and not the worker's thread.
        Exception: what it raised.
    """
    try:
        answer = view(*args, **kwargs)
    except SystemExit as error:
        raise RuntimeError(f"{view!r} called sys.exit()") from error
    check_answer(answer, view)


def run_once(info: TaskInfo, work: Callable[[], None], *, atomic: bool, using: str | None) -> None:
    """Run `work` in the transactions that are asked for; with `atomic`, once in all.

    Raises:
        DuplicateError: it ran before.
        BusyError: others hold what it needs before it begins, its receipt say, which another delivery is writing.
        Exception: what `work` raised, after all was rolled back.
    """
    names = atomic_aliases()
    if not (atomic or names):
        work()
        return
    alias = find_alias(using) if using else get_state().alias
    # The receipt's alias first, so that it commits last: if another fails to commit, there is no receipt.
    aliases = [alias] * atomic + [name for name in names if not (atomic and name == alias)]
    with ExitStack() as stack:
        try:
            for name in aliases:
                stack.enter_context(transactions.atomic(name))
            if atomic and not get_state().claim_receipt(info.start_id, alias):
                raise DuplicateError
        except OperationalError as error:
            if is_lock_error(error):
                raise BusyError(str(error)) from error
            raise
        work()
        for name in aliases:
            if transactions.is_doomed(name):
                # Django would roll back without a word, and the task would be gone as done.
                raise RuntimeError(
                    f"The view left its transaction on {name!r} to be rolled back: it caught a database error, or "
                    "called set_rollback(). Wrap what may fail in a transaction.atomic() of its own."
                )


def run(
    request: HttpRequest,
    view: Any,
    info: TaskInfo,
    work: Callable[[], Outcome],
    fatal_on: tuple[type[Exception], ...],
    delivery: Delivery | None,
    *,
    name: str | None = None,
) -> HttpResponse:
    """Run `work` as the current task, and answer by the table in responses.py.

    Args:
        request: the request; gets `task`.
        view: the view, for signals and the log.
        info: what the view sees.
        work: does it, and returns the outcome where nothing is raised.
        fatal_on: exceptions of the view that end the task.
        delivery: gets to know the exceptions.
        name: that of the function which the view stands for, for the log.
    """
    if delivery is not None and delivery.rehearsal is not None:
        return _rehearse(request, info, work, delivery)
    label = name or getattr(view, "__qualname__", None) or repr(view)
    started = time.perf_counter()
    if name is not None and delivery is not None:
        delivery.functions.append(name)
    request.task = info  # type: ignore[attr-defined] # the documented attribute
    signals.task_started.send_robust(sender=view, task=info, request=request)
    token = current_task.set(info)
    error: Exception | None = None
    countdown = None
    try:
        outcome = work()
    except Exception as raised:  # this is the place where every exception becomes an answer
        error = raised
        outcome, countdown = _judge(request, label, info, raised, fatal_on, delivery)
    finally:
        current_task.reset(token)
    if error is not None and delivery is not None and outcome.name in ("retry", "dead", "unknown"):
        delivery.failures.append(error.__cause__ if isinstance(error, HandedOverError) and error.__cause__ else error)
    if countdown is not None and outcome is responses.RETRY and delivery is not None and not delivery.takes_countdown:
        outcome, countdown = queue_again(request, info, countdown), None
    if outcome is responses.BUSY and delivery is not None and not delivery.takes_countdown:
        outcome = queue_when_free(request, info, getattr(error, "free_in", None))
    seconds = time.perf_counter() - started
    signals.task_finished.send_robust(
        sender=view, task=info, outcome=outcome.name, status=outcome.status, seconds=seconds, error=error
    )
    if delivery is not None and delivery.outcomes is not None:
        # The engine writes the line, as it does for views that are none of ours and for attempts that never answer.
        delivery.outcomes.append(outcome.name)
    else:
        _log_finished(request, info, outcome, seconds, error, name)
    return outcome.to_response(countdown)


def _rehearse(request: HttpRequest, info: TaskInfo, work: Callable[[], Outcome], delivery: Delivery) -> HttpResponse:
    """Run `work` as the current task, for a dry run: nobody is told of it, and nothing is kept."""
    request.task = info  # type: ignore[attr-defined] # the documented attribute
    token = current_task.set(info)
    try:
        return work().to_response()
    except Exception as error:  # it is what the dry run reports
        delivery.failures.append(error)
        return responses.RETRY.to_response()
    finally:
        current_task.reset(token)


def _log_finished(
    request: HttpRequest,
    info: TaskInfo,
    outcome: Outcome,
    seconds: float,
    error: Exception | None,
    function: str | None = None,
) -> None:
    logs.log_task(
        queue=info.queue,
        task=info.name,
        path=request.path,
        attempt=info.retry_count + 1,
        outcome=outcome.name,
        status=outcome.status,
        seconds=seconds,
        wait=None if info.eta is None else time.time() - seconds - info.eta.timestamp(),
        error=None if error is None else logs.name_error(error),
        start=info.start_id,
        function=function,
    )


def _judge(
    request: HttpRequest,
    name: str,
    info: TaskInfo,
    error: Exception,
    fatal_on: tuple[type[Exception], ...],
    delivery: Delivery | None,
) -> tuple[Outcome, str | None]:
    """Return the outcome of an exception, and the countdown that a repeating view asked for."""
    if isinstance(error, DuplicateError):
        return responses.DUPLICATE, None
    if isinstance(error, BusyError):
        logger.debug("task %s of queue %s is busy: %s", info.name, info.queue, error)
        return responses.BUSY, None
    if isinstance(error, EarlySliceError):
        logger.info("task %s of queue %s came early: %s", info.name, info.queue, error)
        return responses.RETRY, None
    if isinstance(error, UnknownCallError):
        return _await_release(request, name, info, error, delivery), None
    if isinstance(error, HandedOverError):
        cause = error.__cause__
        _log_failure(info, name, cause if isinstance(cause, Exception) else error, "goes on in a new task")
        return responses.HANDED_OVER, None
    outcome = responses.RETRY if isinstance(error, RefusedError) else responses.judge_error(error, fatal_on)
    if outcome is not responses.DEAD and not info.is_last_attempt:
        _log_failure(info, name, error, "will be tried again")
        return outcome, getattr(error, "countdown", None) if isinstance(error, RefusedError) else None
    return bury(request, info, error, name=name), None


def _await_release(
    request: HttpRequest, name: str, info: TaskInfo, error: UnknownCallError, delivery: Delivery | None
) -> Outcome:
    """Have a task wait for a release that knows what it calls, for a day; that counts as no attempt."""
    logger.warning(
        "task %s of queue %s (%s) waits for a release that knows what it calls: %s", info.name, info.queue, name, error
    )
    if delivery is None or delivery.takes_countdown:
        # The engine lets it wait.
        return responses.UNKNOWN
    return queue_for_release(request, info) or bury(request, info, error, name=name)


def _log_failure(info: TaskInfo, name: str, error: BaseException, then: str) -> None:
    message = "task %s of queue %s (%s) failed at attempt %d and %s"
    args = (info.name, info.queue, name, info.retry_count + 1, then)
    if isinstance(error, RefusedError):
        logger.info(message + ": %s", *args, error)
    elif responses.judge_error(error, ()) is responses.RETRY_QUIETLY:  # type: ignore[arg-type]
        logger.info(message + ": %s", *args, describe(error))
    else:
        logger.error(message, *args, exc_info=error)


def bury(request: HttpRequest, info: TaskInfo | None, error: Exception, *, name: str | None = None) -> Outcome:
    """Keep a dead letter for a task that failed for good; if it cannot be kept, have the task come again."""
    try:
        letter = DeadLetter(
            task=rebuild_task(request, info),
            attempts=info.retry_count + 1 if info is not None else 1,
            error_type=f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
            error=str(error),
            traceback="".join(traceback.format_exception(error)),
        )
        get_state().add_dead_letter(letter)
    except BusyError as busy:
        logger.info("the task of %s failed, but another delivery has its shard: %s", request.path, busy)
        return responses.BUSY
    except Exception:
        logger.exception("could not keep a dead letter for %s; the task will be tried again", request.path)
        return responses.RETRY
    logger.error(
        "task %s of queue %s (%s) failed for good and is kept as a dead letter",
        letter.task.name,
        letter.task.queue,
        name or request.path,
        exc_info=error,
    )
    return responses.DEAD


def bury_overdue(request: HttpRequest, info: TaskInfo) -> Outcome:
    """Keep a dead letter for a task whose attempts were used up before this one, and the last of which left none."""
    status = 504 if info.previous_status is None else info.previous_status
    try:
        task = rebuild_task(request, info)
        meta = read_meta(task)
        if meta is not None and meta.slice is not None and take_up(meta.slice):
            logger.warning(
                "the last of %d attempts of task %s of queue %s did not end by itself; as the slice got on, the next "
                "one goes on from there",
                info.retry_count,
                info.name,
                info.queue,
            )
            _log_finished(request, info, responses.HANDED_OVER, 0.0, None)
            return responses.HANDED_OVER
        get_state().task_exhausted(task, info.retry_count, status, holder_died=False)
    except BusyError as busy:
        logger.info("task %s of queue %s may be at work still: %s", info.name, info.queue, busy)
        outcome = queue_when_free(request, info, busy.free_in)
        _log_finished(request, info, outcome, 0.0, busy)
        return outcome
    except Exception:
        logger.exception("could not keep a dead letter for %s; the task will be tried again", request.path)
        return responses.RETRY
    logger.error(
        "task %s of queue %s (%s) is kept as a dead letter: the last of its %d attempts did not end by itself",
        info.name,
        info.queue,
        request.path,
        info.retry_count,
    )
    _log_finished(request, info, responses.DEAD, 0.0, None)
    return responses.DEAD
