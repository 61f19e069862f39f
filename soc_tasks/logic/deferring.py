"""What deferred functions and deferred iterations have in common: their URL, their checks, and how they are queued."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final

from django.urls import NoReverseMatch

from soc_tasks.backends import get_backend
from soc_tasks.errors import ConfigurationError
from soc_tasks.logic import envelopes
from soc_tasks.logic.calls import describe
from soc_tasks.logic.urls import Place, find_options, resolve_target
from soc_tasks.state import get_state
from soc_tasks.values import Task, TaskRequest

#: Names of the URL patterns of the views that call deferred functions, and run deferred iterations (soc_tasks.urls).
HANDLER: Final = "tasks_deferred_handler"
ITERATION_HANDLER: Final = "tasks_deferred_iteration_handler"


def check_function(function: Any, caller: str = "defer() takes a function first") -> None:
    """Refuse what cannot be called later.

    Args:
        function: the function.
        caller: says what it should be.

    Raises:
        TypeError: it is no function, async, or a task view.
    """
    if not callable(function):
        raise TypeError(f"{caller}, not {function!r:.200}. Pass it without calling it: defer(f, 1), not defer(f(1)).")
    while isinstance(function, partial):
        function = function.func
    if iscoroutinefunction(function):
        raise TypeError(f"{describe(function)} is async, which deferred functions cannot be yet; write a plain one.")
    if find_options(function) is not None:
        raise TypeError(f"{describe(function)} is a task view: start it with startTask().")


def make_request(
    context: dict[str, str], options: Mapping[str, Any], handler: str = HANDLER, *, place: Place | None = None
) -> TaskRequest:
    """Return the request for the task of a deferred call.

    Args:
        context: what it carries.
        options: those of the caller, by their names; what is not there has its default.
        handler: name of the URL pattern, unless `_url` is given.
        place: what URLs are made by; None: asked now.

    Raises:
        ConfigurationError: the URL conf does not include `soc_tasks.urls`.
        ValueError: `_url` leads to another view.
    """
    url, elsewhere = options.get("_url") or handler, options["_service"] is not None
    try:
        target = resolve_target(url, elsewhere=elsewhere, place=place)
    except ValueError as error:
        if url == handler and isinstance(error.__cause__, NoReverseMatch):
            raise ConfigurationError(
                'Deferred functions need a URL: put path("_tasks/", include("soc_tasks.urls")) into the URL conf.'
            ) from error
        raise
    if url != handler and not elsewhere and not target.options.calls_deferred:
        raise ValueError(f"_url={url!r} leads to another view than soc_tasks.views.deferred.deferred.")
    return TaskRequest(
        # Not looked up a second time.
        url=target.path,
        context=context,
        countdown=options.get("_countdown"),
        eta=options.get("_eta"),
        name=options.get("_name"),
        headers=options.get("_headers"),
        service=options["_service"],
        version=options["_version"],
        instance=options.get("_instance"),
        retry_options=options.get("_retry_options"),
    )


def submit(task: Task, kept: bytes | None, using: str) -> None:
    """Queue a task, with what the state keeps for it: in one transaction, or before it where that is elsewhere."""
    state = get_state()
    if kept is not None:
        with state.atomic():
            envelopes.keep(task.start_id, kept, task.eta)
            if using == state.alias:
                get_backend().submit([task], using)
                return
    get_backend().submit([task], using)
