"""Deliveries of slices: what views of iterations have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from soc_tasks.errors import FatalTaskError, PayloadError
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.current import current_task
from soc_tasks.logic.failed_items import find_plan
from soc_tasks.logic.iteration_calls import FEW_ROWS
from soc_tasks.logic.payloads import UnknownNameError
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.selections import narrow
from soc_tasks.logic.slice_runs import Finalize, Process
from soc_tasks.logic.slices import run_slice
from soc_tasks.state import get_state
from soc_tasks.views import responses
from soc_tasks.views.intake import Call
from soc_tasks.views.responses import Outcome
from soc_tasks.views.running import RefusedError, UnknownCallError


def find_selected(call: Call, plan: Plan) -> Plan:
    """Return the plan, narrowed to the selection that is kept for the call's iteration, if there is one.

    Raises:
        CallEndedError: the iteration has ended.
        UnknownCallError: another release may know its model.
        FatalTaskError: it is none of ours.
    """
    if not call.meta.selection:
        return plan
    message, total, start_id = call.meta.slice, None, call.meta.start_id
    if message is not None:
        record = get_state().get_iteration(message.iteration)
        start_id, total = (message.iteration, None) if record is None else find_plan(record)
    # For a start as a whole: its rows are counted, and divided by one pass.
    paged = message is not None and (total is None or total > FEW_ROWS)
    try:
        return narrow(plan, start_id, paged=paged)
    except UnknownNameError as error:
        raise UnknownCallError(f"The selection of the iteration is not known here: {error}") from error
    except PayloadError as error:
        raise FatalTaskError(str(error)) from error


#: What test tools put around the view, and around finalize, of the slices in this context.
between: ContextVar[Callable[[Plan, Budget, Callable[..., Any]], Callable[..., Any]] | None] = ContextVar(
    "soc_tasks_between", default=None
)


def make_budget(call: Call, plan: Plan) -> Budget:
    """Return the time that a delivery has."""
    stopping = call.delivery.stopping if call.delivery is not None else lambda: False
    return Budget.for_delivery(plan, call.info.deadline, stopping)


def deliver(call: Call, plan: Plan, budget: Budget, process: Process, finalize: Finalize | None) -> Outcome:
    """Run a slice: batch after batch, or `finalize`, behind the fence.

    Args:
        call: its delivery.
        plan: what is iterated over.
        budget: when to hand over.
        process: runs the view on a batch.
        finalize: runs what comes after all shards, where it is a function.
    """
    message = call.meta.slice
    assert message is not None  # the caller looked
    if call.delivery is not None and call.delivery.rehearsal is not None:
        call.delivery.rehearsal.try_batch(message, plan, process, budget)
        return responses.DONE

    def finish(context: dict[str, Any]) -> None:
        # It is of no shard, though it has the place of one.
        token = current_task.set(dataclasses.replace(call.info, shard=None))
        try:
            if finalize is not None:
                finalize(context)
        finally:
            current_task.reset(token)

    if (put := between.get()) is not None:
        process, finish = put(plan, budget, process), put(plan, budget, finish)
    ran = run_slice(
        message,
        plan,
        process,
        budget,
        lambda error: responses.judge_error(error) is responses.DEAD,
        finish,
        # An answer that is no 2xx asks for another attempt.
        lambda error: not isinstance(error, RefusedError),
    )
    return responses.DONE if ran else responses.STALE
