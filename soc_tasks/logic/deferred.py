"""`defer`: a function is called later, by a task. Its companion is in deferred_iterations.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from soc_tasks.logic import envelopes
from soc_tasks.logic.calls import Call, describe, write_call
from soc_tasks.logic.current import current_task
from soc_tasks.logic.deferred_iterations import defer_iteration_with_finalize
from soc_tasks.logic.deferring import check_function, make_request, submit
from soc_tasks.logic.tasks import build_task, refuse_event_loop
from soc_tasks.logic.urls import find_place
from soc_tasks.state.transactions import default_alias, find_alias
from soc_tasks.values import RetryOptions, TaskHandle

__all__ = ["defer", "defer_iteration_with_finalize", "get_deferred_shard_index"]

#: The options, with their defaults.
_OPTIONS: Final[Mapping[str, Any]] = {
    "_queue": "default",
    "_eta": None,
    "_countdown": None,
    "_name": None,
    "_service": None,
    "_version": None,
    "_instance": None,
    "_transactional": None,
    "_using": None,
    "_small_task": False,
    "_wipe_related_caches": True,
    "_retry_options": None,
    "_url": None,
    "_headers": None,
    "_atomic": False,
}
_FLAGS: Final = ("_small_task", "_wipe_related_caches", "_atomic")


def defer(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """Have a function called later, by a task; what it returns is dropped.

    It is called until it returns. PermanentTaskFailure and FatalTaskError end that, SingularTaskFailure has it called
    again quietly, every other exception is logged and has it called again.

    Args:
        function: a function of a module, a class, a static, class or bound method, or a partial of one of these. It is
            found again by its name, in a package of INSTALLED_APPS, ROOT_URLCONF, Django or `DEFERRABLE`.
        args, kwargs: what it is called with: all that JSON holds, date and time types, Decimal, UUID, bytes, tuples,
            sets, enum members, dataclasses, functions and classes by name, model instances as they are now, and what
            has a codec (`register_codec`). Names with an underscore before them are these options:

            _queue (str): name of the queue; default "default".
            _eta (datetime): not before this moment; a naive one is taken for UTC.
            _countdown (float): seconds to wait; goes before `_eta`.
            _name (str): to have the task once only.
            _service, _version, _instance (str): where it runs, on a backend that routes.
            _using (str): database alias; in an atomic block of it, the task exists if and only if that commits.
            _transactional (bool): there for callers of other libraries; in an atomic block it is always on.
            _small_task (bool): never keep large arguments in the database.
            _wipe_related_caches (bool): False: instances travel with the related ones in their caches.
            _retry_options (RetryOptions, or a dict of its fields): go before the queue's.
            _url (str): another URL that leads to `soc_tasks.views.deferred.deferred`.
            _headers (dict): sent along.
            _atomic (bool): what the function writes on `_using` commits with its receipt: once in all.

    Raises:
        TypeError: an option is unknown, or the function does not take the arguments.
        PayloadError: the function or an argument cannot travel; a TypeError as well.
        ValueError: an option is out of range.
        ConfigurationError: the URL conf does not include `soc_tasks.urls`.
        EnqueueError: the task was not accepted; its subclasses say why.
    """
    refuse_event_loop("defer")
    options = _take_options(kwargs)
    check_function(function)
    call = Call(function=function, args=args, kwargs=kwargs, atomic=options["_atomic"], using=options["_using"])
    written = write_call(call, related=not options["_wipe_related_caches"])
    call.check_arguments()
    context, kept = envelopes.seal(written, describe(function), small=options["_small_task"])
    place = find_place()
    task, handle = build_task(make_request(context, options, place=place), options["_queue"], place=place)
    submit(task, kept, options["_using"])
    return handle


def _take_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of the keyword arguments.

    Raises:
        TypeError, ValueError: one is unknown, or of the wrong kind.
    """
    options = {name: kwargs.pop(name, default) for name, default in _OPTIONS.items()}
    if unknown := sorted(name for name in kwargs if name.startswith("_")):
        raise TypeError(
            f"defer() has no option {', '.join(unknown)}; it knows {', '.join(_OPTIONS)}. For an argument of the "
            "function with such a name, use functools.partial."
        )
    for name in _FLAGS:
        if not isinstance(options[name], bool):
            raise TypeError(f"{name} must be True or False, not {options[name]!r}.")
    options["_queue"] = _OPTIONS["_queue"] if options["_queue"] is None else options["_queue"]
    options["_using"] = default_alias() if options["_using"] is None else find_alias(options["_using"], "_using")
    options["_retry_options"] = _read_retry(options["_retry_options"])
    if options["_countdown"] == 0 and options["_countdown"] is not False:
        # As in djangae: it does not go before the eta.
        options["_countdown"] = None
    eta = options["_eta"]
    if isinstance(eta, datetime) and eta.tzinfo is None:
        options["_eta"] = eta.replace(tzinfo=UTC)
    return options


def _read_retry(given: Any) -> RetryOptions | None:
    if given is None or isinstance(given, RetryOptions):
        return given
    known = [field.name for field in dataclasses.fields(RetryOptions)]
    if isinstance(given, Mapping):
        if unknown := sorted(map(repr, given.keys() - set(known))):
            raise TypeError(f"_retry_options has no {', '.join(unknown)}; it knows {', '.join(known)}.")
        return RetryOptions(**given)
    raise TypeError(f"_retry_options must be RetryOptions(…) or a dict of {', '.join(known)}, not {given!r:.100}.")


def get_deferred_shard_index() -> int | None:
    """Return which shard of an iteration the callback, or view, is called for: 0 and up; None elsewhere."""
    info = current_task.get()
    return None if info is None else info.shard
