"""Functions as `finalize`: what may be one, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from soc_tasks.logic.calls import Call
from soc_tasks.logic.urls import find_options, name_view
from soc_tasks.state import get_state
from soc_tasks.values import IterationResult

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_finalize(finalize: Any) -> None:
    """Refuse what can never be a finalize.

    Raises:
        TypeError: it is none of a text, a task view and a function, or it is async.
    """
    if finalize is None or (isinstance(finalize, str) and finalize) or find_options(finalize) is not None:
        return
    if not callable(finalize):
        raise TypeError(
            f"finalize must be the name of a URL pattern, a task view or a function, not {finalize!r:.100}."
        )
    function = finalize
    while isinstance(function, partial):
        function = function.func
    if iscoroutinefunction(function):
        raise TypeError(f"{finalize!r:.100} is async, which finalize cannot be yet; write a plain function.")


def call_finalize(function: Callable[..., Any], known: Mapping[str, Any], result: IterationResult) -> None:
    """Call a finalize with what it takes of what is known.

    Args:
        function: the finalize.
        known: the context, and the captured URL arguments.
        result: what it gets as `result`, where it has a parameter of that name.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        taken = dict(known)
    else:
        names = {parameter.name for parameter in parameters if parameter.kind in _BY_NAME}
        taken = {name: value for name, value in known.items() if name in names}
    Call(function=function, args=(), kwargs=add_result(function, (), taken, result)).make()


def name_finalize(finalize: Any) -> str:
    """Return what a finalize is called, for people; "" for none."""
    if finalize is None or isinstance(finalize, str):
        return finalize or ""
    return name_view(finalize)


def takes_result(function: Any) -> bool:
    """Tell whether a function has a parameter `result` that nobody has filled yet; `**kwargs` is none."""
    if isinstance(function, partial) and "result" in function.keywords:
        return False
    try:
        parameter = inspect.signature(function).parameters.get("result")
    except (TypeError, ValueError):
        # Some of those written in C have none.
        return False
    return parameter is not None and parameter.kind in _BY_NAME


def add_result(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return keyword arguments for a function, with `result` where it takes that beside the arguments."""
    if "result" in kwargs or not takes_result(function):
        return dict(kwargs)
    try:
        inspect.signature(function).bind_partial(*args, result=result)
    except TypeError:
        # One of the positional arguments has its place.
        return dict(kwargs)
    return {**kwargs, "result": result}


def find_result(iteration_id: str) -> IterationResult:
    """Return the counts of an iteration whose shards are all done: the same at each attempt of its finalize."""
    state = get_state()
    iteration, shards = state.get_iteration(iteration_id), state.list_done_shards(iteration_id)
    moments = [shard.progressed_at for shard in shards if shard.status == "done" and shard.progressed_at is not None]
    created = iteration.created if iteration is not None else None
    return IterationResult(
        iteration=iteration_id,
        done=sum(shard.done for shard in shards),
        failed=sum(shard.failed for shard in shards),
        total=iteration.total if iteration is not None else None,
        seconds=max(0.0, (max(moments) - created).total_seconds()) if moments and created is not None else 0.0,
    )
