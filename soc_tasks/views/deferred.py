"""The view that calls deferred functions: `path("_tasks/", include("soc_tasks.urls"))`."""

from __future__ import annotations

import logging
from typing import Any

from django.db import Error
from django.http import HttpRequest, HttpResponse

from soc_tasks.errors import FatalTaskError, PayloadError
from soc_tasks.logic.calls import Call as DeferredCall
from soc_tasks.logic.calls import read_call
from soc_tasks.logic.envelopes import LABEL, CallEndedError, forget, open_sealed
from soc_tasks.logic.payloads import UnknownNameError
from soc_tasks.logic.urls import ViewOptions
from soc_tasks.state import get_state
from soc_tasks.values import TaskInfo
from soc_tasks.views import responses
from soc_tasks.views.access import from_queue
from soc_tasks.views.decorators import make_view
from soc_tasks.views.intake import Call
from soc_tasks.views.responses import Outcome
from soc_tasks.views.running import UnknownCallError, run, run_once

logger = logging.getLogger("soc_tasks")


class UnreadableCallError(FatalTaskError):
    """A deferred call that can never be made."""


def _read(info: TaskInfo) -> DeferredCall:
    """Return what is to be called.

    Raises:
        CallEndedError: it was called before, and is known to have been.
        UnknownCallError: it is not known here; another release may know it.
        UnreadableCallError: it is no call of ours.
    """
    try:
        call = read_call(open_sealed(info.context, info.start_id))
        call.check_arguments()
    except UnknownNameError as error:
        raise UnknownCallError(f"{info.context.get('function', 'a function')} cannot be called: {error}") from error
    except (PayloadError, TypeError) as error:
        raise UnreadableCallError(str(error)) from error
    return call


def _run(info: TaskInfo) -> Outcome:
    try:
        call = _read(info)
    except CallEndedError:
        return responses.DUPLICATE
    stored = "stored" in info.context

    # On another alias the receipt commits first: without either the call would be taken for one that was made.
    together = call.atomic and call.using == get_state().alias

    def work() -> None:
        call.make()
        if stored and together:
            forget(info.start_id)

    run_once(info, work, atomic=call.atomic, using=call.using)
    if stored and not together:
        try:
            forget(info.start_id)
        except Error:
            # The function has returned; what it needed is swept with time.
            logger.exception("the arguments of task %s are still in the state", info.name)
    return responses.DONE


def name_function(context: dict[str, Any]) -> str:
    """Return the name of what is called, as the sender tells it, for the log."""
    name = context.get("function")
    return name[:LABEL] if isinstance(name, str) else "unknown"


def _view(request: HttpRequest) -> None:
    """Stand for the functions, which are found by their names."""


def _handle(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpResponse:
    return run(
        call.request,
        deferred,
        call.info,
        lambda: _run(call.info),
        (),
        call.delivery,
        name=name_function(call.info.context),
    )


_view.__name__ = _view.__qualname__ = "deferred"
deferred = make_view(_view, from_queue, ViewOptions(calls_deferred=True), _handle)
