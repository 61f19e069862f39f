"""`defer_iteration_with_finalize`: a function is called with each instance of a queryset, another one in the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from django.db.models import Manager, QuerySet

from soc_tasks.logic import envelopes
from soc_tasks.logic.calls import describe
from soc_tasks.logic.datastore_batches import DatastoreLogic
from soc_tasks.logic.datastore_queries import is_query
from soc_tasks.logic.deferring import ITERATION_HANDLER, check_function, make_request, submit
from soc_tasks.logic.full_logic import check_batch_size
from soc_tasks.logic.iteration_calls import IterationCall, write_iteration
from soc_tasks.logic.plans import check_shards, make_source
from soc_tasks.logic.runs import check_one_alias
from soc_tasks.logic.sharding import check_shard_count
from soc_tasks.logic.skipping import check_on_error
from soc_tasks.logic.tasks import build_task, refuse_event_loop
from soc_tasks.state.transactions import default_alias, find_alias
from soc_tasks.values import TaskHandle

#: The options, with their defaults.
_OPTIONS: Final[Mapping[str, Any]] = {
    "key_ranges_getter": None,
    "order_field": "pk",
    "_queue": "default",
    "_service": None,
    "_version": None,
    "_shards": 5,
    "_delete_marker": True,
    "_transactional": None,
    "_using": None,
    "_atomic": False,
    "_batch_size": None,
    "_throttle": None,
    "_on_error": "retry",
    "_error_budget": None,
}

_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "order_field": (str,),
    "_queue": (str, type(None)),
    "_service": (str, type(None)),
    "_version": (str, type(None)),
    "_shards": (int,),
    "_delete_marker": (bool,),
    "_transactional": (bool, type(None)),
    "_atomic": (bool,),
    "_batch_size": (int, type(None)),
    "_on_error": (str,),
    "_error_budget": (int, float, type(None)),
}


def defer_iteration_with_finalize(
    queryset: Any, callback: Callable[..., Any], finalize: Callable[..., Any], *args: Any, **kwargs: Any
) -> TaskHandle:
    """Have a function called with each instance of a queryset, in shards side by side, and another one in the end.

    A callback that fails is called again, from its instance on, or with `_on_error="skip"` its instance is given up;
    PermanentTaskFailure and FatalTaskError end the run, and `Iteration.resume()` goes on. The handle's `iteration` is
    the id of the `Iteration`.

    Args:
        queryset: the instances: of one database, neither sliced nor combined nor annotated. Or the name of a kind of
            Google's Datastore, a query of its client, or a DatastoreLogic.
        callback: called as `callback(instance, *args, **kwargs)`.
        finalize: called once as `finalize(*args, **kwargs)`, after all, and where there was none; with the counts as
            `result`, an `IterationResult`, where it has a parameter of that name beside the arguments.
        args, kwargs: as for `defer`; names with an underscore before them, and the first two, are these options:

            key_ranges_getter (callable): `(queryset, shard_count)` to ranges; default: by the order field's type.
            order_field (str): a field other than the primary key to divide and order by.
            _queue (str): name of the queue; default "default".
            _service, _version (str): where it runs, on a backend that routes.
            _shards (int): how many shards, at most; default 5.
            _delete_marker (bool): False: the shards' records stay after the end, for the retention time.
            _using (str): database alias; in an atomic block of it, the task exists if and only if that commits.
            _transactional (bool): there for callers of other libraries; in an atomic block it is always on.
            _atomic (bool): each batch commits with its place: the database effects of the callback once in all.
            _batch_size (int): instances that are read at a time; default: as many as take `BATCH_SECONDS`.
            _throttle (callable): asked between batches whether to go on, as with `iterative_task`.
            _on_error (str): "skip": an instance whose callback fails is kept in the ledger of failed items, and the
                run goes on.
            _error_budget (int, float): how many of them, or what share, may fail before the run ends as failed.

    Raises:
        TypeError: an argument is of the wrong kind, an option unknown, or a function does not take the arguments.
        PayloadError: something cannot travel; a TypeError as well.
        ValueError: an option is out of range, or the queryset cannot be read in that order.
        ConfigurationError: the URL conf does not include `soc_tasks.urls`; or atomic over two databases.
        NotSupportedError: an option that this release does not have.
        EnqueueError: the task was not accepted; its subclasses say why.
    """
    refuse_event_loop("defer_iteration_with_finalize")
    options, rest = _take_options(args, kwargs)
    check_on_error(options["_on_error"], options["_error_budget"], "_")
    queryset, order_field = _take_source(queryset, options["order_field"])
    for name, function in (("callback", callback), ("finalize", finalize), ("_throttle", options["_throttle"])):
        if function is not None or name != "_throttle":
            check_function(function, f"{name} must be a function")
    if options["_batch_size"] is not None:
        check_batch_size(options["_batch_size"])
    call = IterationCall(
        queryset=queryset,
        callback=callback,
        finalize=finalize,
        getter=options["key_ranges_getter"],
        order_field=order_field,
        args=rest,
        kwargs=kwargs,
        shards=check_shard_count(options["_shards"]),
        batch_size=options["_batch_size"],
        throttle=options["_throttle"],
        delete_marker=options["_delete_marker"],
        atomic=options["_atomic"],
        on_error=options["_on_error"],
        error_budget=options["_error_budget"],
    )
    written = write_iteration(call)
    call.check_arguments()
    source = make_source(call.plan, {})
    check_shards(call.plan, source)
    if call.atomic:
        check_one_alias(call.plan, source)
    context, kept = envelopes.seal(written, describe(callback))
    task, handle = build_task(make_request(context, options, ITERATION_HANDLER), options["_queue"])
    submit(task, kept, options["_using"])
    return dataclasses.replace(handle, iteration=task.start_id)


def _take_source(given: Any, order_field: str) -> tuple[Any, str]:
    """Return a queryset, or a query of Datastore's client, and what orders it; "pk" is the key there.

    Raises:
        TypeError, ValueError: it is neither, nor a kind or a DatastoreLogic, or cannot be read in batches.
    """
    if isinstance(given, Manager):
        given = given.all()
    if isinstance(given, QuerySet):
        return given, order_field
    if isinstance(given, str) or is_query(given):
        given = DatastoreLogic(given)
    if not isinstance(given, DatastoreLogic):
        raise TypeError(
            "defer_iteration_with_finalize() takes a queryset first, or a kind, query or DatastoreLogic, "
            f"not {type(given).__name__}."
        )
    return given.query, given.order_field if order_field == _OPTIONS["order_field"] else order_field


def _take_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Return the options, taken out of both kinds of arguments, and the positional arguments that are left.

    Raises:
        TypeError, ConfigurationError: an option is unknown, given twice, or of the wrong kind.
    """
    placed, rest = _place(args)
    if twice := sorted(placed.keys() & kwargs.keys()):
        raise TypeError(f"defer_iteration_with_finalize() got {', '.join(twice)} by position and by name.")
    named = {name: kwargs.pop(name) for name in _OPTIONS if name in kwargs}
    if unknown := sorted(name for name in kwargs if name.startswith("_")):
        raise TypeError(
            f"defer_iteration_with_finalize() has no option {', '.join(unknown)}; it knows {', '.join(_OPTIONS)}. For "
            "an argument of the functions with such a name, use functools.partial."
        )
    options = {**_OPTIONS, **placed, **named}
    for name, kinds in _KINDS.items():
        value = options[name]
        if not _fits(value, kinds):
            raise TypeError(f"{name} must be {' or '.join(_name(kind) for kind in kinds)}, not {value!r:.200}.")
    if options["key_ranges_getter"] is not None and not callable(options["key_ranges_getter"]):
        raise TypeError(f"key_ranges_getter must be a function or None, not {options['key_ranges_getter']!r:.200}.")
    options["_queue"] = options["_queue"] or _OPTIONS["_queue"]
    options["_using"] = default_alias() if options["_using"] is None else find_alias(options["_using"], "_using")
    return options, rest


def _name(kind: type) -> str:
    return "None" if kind is type(None) else kind.__name__


def _place(args: tuple[Any, ...]) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Return positional arguments as the options that they are, and what is left for the functions.

    Of the three forms that djangae has had, the first argument tells the earliest, the fourth the other two.

    Raises:
        TypeError: an argument fits none of them.
    """
    if not args:
        return {}, ()
    if isinstance(args[0], str):
        names = ["_queue", "_shards"]
    elif args[0] is None or callable(args[0]):
        names = ["key_ranges_getter", "order_field", "_queue"]
        if len(args) > 3 and _is_whole(args[3]):
            names.append("_shards")
        elif len(args) > 3:
            names += (
                ["_service", "_shards"] if len(args) > 4 and _is_whole(args[4]) else ["_service", "_version", "_shards"]
            )
    else:
        raise _misplaced("the fourth", args[0])
    names += ["_delete_marker", "_transactional"]
    for number, (name, value) in enumerate(zip(names, args, strict=False), 4):
        kinds = _KINDS.get(name, (object,))
        if not _fits(value, kinds):
            raise _misplaced(f"number {number}, {name},", value)
    return dict(zip(names, args, strict=False)), args[len(names) :]


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Tell whether a value is of one of the kinds; True and False are no whole numbers."""
    return isinstance(value, kinds) and not (isinstance(value, bool) and not {bool, object} & set(kinds))


def _is_whole(value: Any) -> bool:
    return _fits(value, (int,))


def _misplaced(which: str, value: Any) -> TypeError:
    return TypeError(
        f"defer_iteration_with_finalize() cannot tell what {which} of its positional arguments is: {value!r:.100}. "
        f"Give options by name ({', '.join(_OPTIONS)}), and arguments of the functions by name, too."
    )
