"""The view that runs deferred iterations: their starts and their slices. Its URL is in soc_tasks.urls."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from soc_tasks.errors import PayloadError
from soc_tasks.logic import payloads
from soc_tasks.logic.budgets import Cut
from soc_tasks.logic.envelopes import CallEndedError, open_sealed
from soc_tasks.logic.failed_items import find_plan
from soc_tasks.logic.finalizing import find_result
from soc_tasks.logic.iteration_calls import FEW_ROWS, IterationCall, read_iteration
from soc_tasks.logic.payloads import UnknownNameError
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import start_run
from soc_tasks.logic.urls import ViewOptions
from soc_tasks.meta import Inherited, SliceMessage
from soc_tasks.state import get_state
from soc_tasks.views import responses
from soc_tasks.views.access import from_queue
from soc_tasks.views.decorators import make_view
from soc_tasks.views.deferred import UnreadableCallError, name_function
from soc_tasks.views.intake import Call, quoted_script_name
from soc_tasks.views.responses import Outcome
from soc_tasks.views.running import UnknownCallError, run
from soc_tasks.views.slicing import deliver, make_budget


def _open(context: dict[str, Any], iteration_id: str, *, paged: bool) -> IterationCall:
    """Return what is iterated over.

    Raises:
        CallEndedError: the iteration has ended.
        UnknownCallError: it is not known here; another release may know it.
        UnreadableCallError: it is none of ours.
    """
    try:
        call = read_iteration(open_sealed(context, iteration_id), paged=paged)
        call.check_arguments()
    except UnknownNameError as error:
        raise UnknownCallError(f"{context.get('function', 'a function')} cannot be called: {error}") from error
    except (PayloadError, TypeError) as error:
        raise UnreadableCallError(str(error)) from error
    return call


def _start(call: Call) -> Outcome:
    context, start_id = call.info.context, call.meta.start_id
    try:
        # As a whole: its rows are counted, and divided by one pass.
        iteration = _open(context, start_id, paged=False)
    except CallEndedError:
        return responses.DUPLICATE
    started = start_run(
        start_id=start_id,
        name=context["function"],
        path=call.request.get_full_path(),
        script_name=quoted_script_name(call.request),
        plan=iteration.plan,
        context=context,
        inherited=call.meta.inherited or Inherited(queue=call.info.queue),
    )
    return responses.DONE if started else responses.DUPLICATE


def _slice(call: Call, message: SliceMessage) -> Outcome:
    record = get_state().get_iteration(message.iteration)
    if record is None:
        return responses.STALE
    try:
        origin, rows = find_plan(record)
        paged = rows is None or rows > FEW_ROWS
        iteration = _open(payloads.loads(record.options["context"]), origin, paged=paged)
    except CallEndedError:
        return responses.STALE
    budget = make_budget(call, iteration.plan)

    def process(instances: list[Any], context: dict[str, Any]) -> Cut | None:
        return iteration.call_each(instances, budget)

    def finalize(context: dict[str, Any]) -> None:
        iteration.call_finalize(find_result(record.id))

    return deliver(call, iteration.plan, budget, process, finalize)


def _view(request: HttpRequest) -> None:
    """Stand for the functions, which are found by their names."""


def _handle(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpResponse:
    message = call.meta.slice
    return run(
        call.request,
        deferred_iteration,
        call.info,
        lambda: _start(call) if message is None else _slice(call, message),
        (),
        call.delivery,
        name=name_function(call.info.context),
    )


_view.__name__ = _view.__qualname__ = "deferred_iteration"
deferred_iteration = make_view(_view, from_queue, ViewOptions(plan=Plan(is_kept=True)), _handle)
