"""`@task` and `@iterative_task`: they make a view that a queue may call, and that answers as a queue understands."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, overload

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse, QueryDict, UnreadablePostError

from soc_tasks.logic.batches import is_logic
from soc_tasks.logic.envelopes import CallEndedError
from soc_tasks.logic.finalizing import call_finalize, check_finalize, find_result, takes_result
from soc_tasks.logic.forms import encode_context
from soc_tasks.logic.full_logic import check_batch_size
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import prepare_run, start_run
from soc_tasks.logic.sharding import check_shard_count
from soc_tasks.logic.skipping import check_on_error
from soc_tasks.logic.tasks import MAX_DELAY
from soc_tasks.logic.throttling import Throttle
from soc_tasks.logic.urls import OPTIONS_ATTRIBUTE, ViewOptions, name_view
from soc_tasks.meta import Inherited
from soc_tasks.values import RetryOptions
from soc_tasks.views import responses
from soc_tasks.views.access import as_check, find_delivery, from_queue, plain_info
from soc_tasks.views.intake import BadInputError, Call, quoted_script_name, read_call, refuse
from soc_tasks.views.responses import Outcome
from soc_tasks.views.running import bury, bury_overdue, call_view, run, run_once
from soc_tasks.views.slicing import deliver, find_selected, make_budget
from soc_tasks.views.starting import start_from_outside

View = Callable[..., Any]
Access = Callable[[HttpRequest], bool]


class EveryAlias(frozenset[str]):
    """Says yes to every alias: ATOMIC_REQUESTS around a task view would swallow our commits."""

    def __contains__(self, alias: object) -> bool:
        return True


@overload
def task(view: View, /) -> View: ...


@overload
def task(
    *,
    access: Access = ...,
    atomic: bool = ...,
    using: str | None = ...,
    fatal_on: type[Exception] | Sequence[type[Exception]] = ...,
    max_attempts: int | None = ...,
) -> Callable[[View], View]: ...


def task(
    view: View | None = None,
    /,
    *,
    access: Access = from_queue,
    atomic: bool = False,
    using: str | None = None,
    fatal_on: type[Exception] | Sequence[type[Exception]] = (),
    max_attempts: int | None = None,
) -> Any:
    """Make a view a task: a queue calls it by POST until it succeeds or fails for good.

    The view returns None or a 2xx response when it is done. FatalTaskError, Http404 and PermissionDenied end the task;
    every other exception, and every other response, has it tried again.

    Args:
        view: the view, where the decorator is used bare; a function or a bound method.
        access: who may call it, such as `from_queue | superuser`.
        atomic: whether the view and its receipt commit together, so that a duplicate does nothing.
        using: alias of that transaction; None: the engine's.
        fatal_on: further exceptions that end the task.
        max_attempts: attempts in all unless `startTask` says otherwise; -1 without limit.

    Raises:
        TypeError: the view is async, or is no callable.
    """
    ends_task = tuple(fatal_on) if isinstance(fatal_on, (tuple, list, set, frozenset)) else (fatal_on,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in ends_task):
        raise TypeError(f"fatal_on must hold exception classes, not {fatal_on!r}.")
    RetryOptions(max_attempts=max_attempts)

    def decorate(view: View) -> View:
        wants_result = callable(view) and takes_result(view)

        def handle(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpResponse:
            if call.meta.result is not None and wants_result:
                # It is the finalize of an iteration; what the URL says goes first.
                kwargs = {"result": call.meta.result, **kwargs}

            def work() -> Outcome:
                run_once(call.info, lambda: call_view(view, *args, **kwargs), atomic=atomic, using=using)
                return responses.DONE

            return run(call.request, view, call.info, work, ends_task, call.delivery)

        return make_view(view, access, ViewOptions(max_attempts=max_attempts), handle)

    return decorate if view is None else decorate(view)


def iterative_task(  # the public signature
    logic: Any = None,
    repeat_in: float | None = None,
    *,
    filter: Any = None,
    fields: Any = None,
    order: str | None = None,
    start_key: str | None = None,
    batch_size: int | None = None,
    shards: int = 1,
    finalize: Any = None,
    atomic: bool = False,
    time_limit: float | None = None,
    on_error: str = "retry",
    access: Access = from_queue,
    using: str | None = None,
    throttle: Throttle | None = None,
    error_budget: int | float | None = None,
) -> Any:
    """Make a view an iteration: it is called with one batch of entities after the other until none is left.

    The view gets `entities` (a list), and `context` if its signature takes it, by keyword. It need return nothing.

    Args:
        logic: a model, a queryset, a registered name, anything with `getBatchOfData`; None: the posted context names
            it. Any other callable is the view: the decorator is used bare.
        repeat_in: seconds after which the whole iteration starts again, from the original context.
        filter: restriction of the entities; what the context posts is added to it. `fields` is the same.
        fields: Melange's name for `filter`.
        order: order field, "-" before it for descending.
        start_key: where to begin.
        batch_size: entities a batch, at most 1,000; None: of a model or a queryset as many as take `BATCH_SECONDS`, of
            another logic what it gives.
        shards: into how many parts the entities are divided, at most, that are worked off side by side.
        finalize: what follows once when all is done: the name of a URL pattern or a task view, which is started with
            the original context, or a function, which gets of `context` and the captured URL arguments what it takes;
            each gets the counts as `result`, an `IterationResult`, if it has a parameter of that name.
        atomic: whether each batch, its cursor and the next task commit in one transaction.
        time_limit: seconds that one delivery may use before it hands over to the next; None: `SLICE_SECONDS`.
        on_error: what becomes of a batch that fails. "retry": it is tried again. "skip": it is halved until one entity
            stands alone, which is given up and kept in the ledger of failed items (`Iteration.failed_items`).
        access: who may start it; its slices accept the queue alone.
        using: alias that the entities are read from.
        throttle: asked between batches, at most once a second, without arguments; it returns None to go on, or a
            `Hold`, seconds, a timedelta or a reason to hold the iteration back.
        error_budget: how many entities may be given up (an int), or what share of those worked off (a float below 1),
            before the run ends as failed; None: any number.

    Raises:
        TypeError: the view is async or does not take `entities`.
        ValueError: an argument is out of range.
    """
    if callable(logic) and not is_logic(logic):
        return iterative_task()(logic)
    if logic is not None and not is_logic(logic):
        raise TypeError(
            f"logic must be a model, a queryset, a registered name or have getBatchOfData, not {logic!r:.100}."
        )
    check_on_error(on_error, error_budget)
    check_shard_count(shards)
    check_finalize(finalize)
    if throttle is not None and (not callable(throttle) or iscoroutinefunction(throttle)):
        raise TypeError(f"throttle must be a plain function without arguments, not {throttle!r:.100}.")
    if filter is not None and fields is not None:
        raise TypeError("filter and fields are the same thing; give one.")
    _check_seconds("repeat_in", repeat_in, low=0, high=MAX_DELAY.total_seconds())
    _check_seconds("time_limit", time_limit, low=1e-9)
    if batch_size is not None:
        check_batch_size(batch_size)
    plan = Plan(
        logic=logic,
        filter=fields if filter is None else filter,
        order=order,
        start_key=start_key,
        batch_size=batch_size,
        atomic=atomic,
        using=using,
        repeat_in=repeat_in,
        throttle=throttle,
        time_limit=time_limit,
        shards=shards,
        finalize=finalize,
        on_error=on_error,
        error_budget=error_budget,
    )

    def decorate(view: View) -> View:
        takes_context = _check_signature(view)

        def handle(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HttpResponse:
            def work() -> Outcome:
                try:
                    chosen = find_selected(call, plan)
                except CallEndedError:
                    return responses.STALE if call.meta.slice else responses.DUPLICATE
                if call.meta.slice:
                    return _slice(call, view, chosen, takes_context, args, kwargs)
                return _start(call, view, chosen)

            return run(call.request, view, call.info, work, (), call.delivery)

        return make_view(view, access, ViewOptions(plan=plan), handle)

    return decorate


def _start(call: Call, view: View, plan: Plan) -> Outcome:
    """Begin the iteration, with its first slices, in one transaction."""
    what: dict[str, Any] = {
        "start_id": call.meta.start_id,
        "name": name_view(view),
        "path": call.request.get_full_path(),
        "script_name": quoted_script_name(call.request),
        "plan": plan,
        "context": call.info.context,
        "inherited": call.meta.inherited or Inherited(queue=call.info.queue),
    }
    if call.delivery is not None and call.delivery.rehearsal is not None:
        call.delivery.rehearsal.begin(plan, partial(prepare_run, **what))
        return responses.DONE
    return responses.DONE if start_run(**what) else responses.DUPLICATE


def _slice(
    call: Call, view: View, plan: Plan, takes_context: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    """Run a slice: batch after batch, behind the fence."""

    def process(entities: list[Any], context: dict[str, Any]) -> None:
        # The context lives on the shard, not in the message: the view finds it where a plain task finds it.
        call.request.POST = QueryDict(encode_context(context)[0])
        call.request.task = dataclasses.replace(call.info, context=context)  # type: ignore[attr-defined]
        extra = {"entities": entities, "context": context} if takes_context else {"entities": entities}
        call_view(view, *args, **kwargs, **extra)

    def finalize(context: dict[str, Any]) -> None:
        assert call.meta.slice is not None  # a start has no finalize
        call_finalize(plan.finalize, {**kwargs, "context": context}, find_result(call.meta.slice.iteration))

    return deliver(call, plan, make_budget(call, plan), process, finalize if plan.finalizes_itself else None)


def make_view(
    view: View, access: Access, options: ViewOptions, handle: Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
) -> View:
    """Wrap `view` in what is the same for all tasks.

    Args:
        view: the view.
        access: who may call it.
        options: what the enqueuing side must know of it.
        handle: answers a call that was let in and read.
    """
    if not callable(view) or isinstance(view, type):
        raise TypeError(f"A task is a view function or a bound method, not {view!r}.")
    if iscoroutinefunction(view) or iscoroutinefunction(getattr(view, "__call__", None)):  # noqa: B004 - not whether
        raise TypeError(f"{view!r} is async, which tasks do not support yet; write a plain function.")
    check = as_check(access)

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> HttpResponse:
        request = _find_request(args)
        refusal = refuse(request, check)
        if refusal is not None:
            return refusal
        if not from_queue(request):
            return start_from_outside(request)
        try:
            call = read_call(request)
        except UnreadablePostError:
            return responses.RETRY.to_response()
        except BadInputError as error:
            return _bury_unread(request, error, view)
        if call.delivery is not None and call.delivery.is_overdue:
            return bury_overdue(request, call.info).to_response()
        return handle(call, args, kwargs)  # type: ignore[no-any-return]

    guarded.csrf_exempt = True  # type: ignore[attr-defined] # a queue has no cookie; sessions are checked in access.py
    guarded.login_required = False  # type: ignore[attr-defined] # LoginRequiredMiddleware would redirect
    guarded._non_atomic_requests = EveryAlias()  # type: ignore[attr-defined]
    setattr(guarded, OPTIONS_ATTRIBUTE, dataclasses.replace(options, takes_queue=check.takes_queue, access=check))
    return guarded


def _bury_unread(request: HttpRequest, error: BadInputError, view: View) -> HttpResponse:
    delivery = find_delivery(request)
    if delivery is not None:
        delivery.failures.append(error)
    return bury(request, plain_info(request), error, name=getattr(view, "__qualname__", None)).to_response()


def _find_request(args: tuple[Any, ...]) -> HttpRequest:
    """Return the request: the first argument, or the second behind `self`."""
    for candidate in args[:2]:
        if isinstance(candidate, HttpRequest):
            return candidate
    raise TypeError("A task view is called with an HttpRequest; to run it later, call startTask(view).")


def _check_signature(view: View) -> bool:
    """Return whether the view takes `context`; refuse one that does not take `entities`."""
    parameters = inspect.signature(view).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not anything and "entities" not in parameters:
        raise TypeError(f"{view!r} must take the keyword argument entities, in which it gets its batch.")
    return anything or "context" in parameters


def _check_seconds(name: str, value: float | None, *, low: float, high: float = float("inf")) -> None:
    if value is None:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        most = "" if high == float("inf") else f", at most {high:,.0f}"
        raise ValueError(f"{name} must be seconds, {'0 or more' if low == 0 else 'above 0'}{most}, not {value!r}.")
