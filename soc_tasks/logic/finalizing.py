"""Functions as `finalize`: what may be one, and how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from soc_tasks.logic.calls import Call
from soc_tasks.logic.urls import find_options, name_view


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


def call_finalize(function: Callable[..., Any], known: Mapping[str, Any]) -> None:
    """Call a finalize with what it takes of what is known.

    Args:
        function: the finalize.
        known: the context, and the captured URL arguments.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        taken = dict(known)
    else:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = {parameter.name for parameter in parameters if parameter.kind in kinds}
        taken = {name: value for name, value in known.items() if name in names}
    Call(function=function, args=(), kwargs=taken).make()


def name_finalize(finalize: Any) -> str:
    """Return what a finalize is called, for people; "" for none."""
    if finalize is None or isinstance(finalize, str):
        return finalize or ""
    return name_view(finalize)
