"""A deferred iteration as a text: queryset, callback, finalize and their arguments, as calls.py has it for one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from django.db.models import QuerySet

from soc_tasks.errors import DoNotRepeatException, PayloadError
from soc_tasks.logic import payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.batches import make_paced
from soc_tasks.logic.budgets import Budget, Cut
from soc_tasks.logic.calls import MOST_BYTES, Call, Written
from soc_tasks.logic.datastore_queries import is_query
from soc_tasks.logic.finalizing import add_result
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.sharding import Getter
from soc_tasks.logic.skipping import check_on_error
from soc_tasks.logic.throttling import Throttle
from soc_tasks.values import IterationResult

#: Of the text's form. A release reads its own, and those before.
VERSION: Final = 1
#: Up to so many rows it is cheaper to make their list for each batch than to look each row of the table up.
FEW_ROWS: Final = 1000

_FIELDS: Final[Mapping[str, Any]] = {
    "version": int, "queryset": str, "callback": object, "finalize": object, "getter": object, "order_field": str,
    "args": list, "kwargs": dict, "shards": int, "batch_size": (int, type(None)), "throttle": object,
    "delete_marker": bool, "atomic": bool,
    "on_error": str, "error_budget": object,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class IterationCall:
    """What a deferred iteration does.

    Args:
        queryset: the instances: a queryset, or a query of Datastore's client.
        callback: called with each instance.
        finalize: called once when all is done.
        getter: makes the key ranges; None: by the type of the order field.
        order_field: the order.
        args, kwargs: what both functions are called with, behind the instance.
        shards: how many, at most.
        batch_size: instances that are read at a time; None: by their duration.
        throttle: asked whether to go on.
        delete_marker: whether the shards are dropped at the end.
        atomic: whether each batch commits with its cursor.
        on_error, error_budget: what becomes of instances whose callback fails.
    """

    queryset: Any
    callback: Callable[..., Any]
    finalize: Callable[..., Any]
    getter: Getter | None
    order_field: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shards: int
    batch_size: int | None
    throttle: Throttle | None
    delete_marker: bool
    atomic: bool
    on_error: str = "retry"
    error_budget: int | float | None = None

    @cached_property
    def plan(self) -> Plan:
        """Return it as the plan of an iteration.

        Raises:
            ValueError: the queryset cannot be read in batches, or not in that order.
        """
        return Plan(
            logic=make_paced(self.queryset, self.order_field),
            batch_size=self.batch_size,
            throttle=self.throttle,
            atomic=self.atomic,
            shards=self.shards,
            key_ranges_getter=self.getter,
            finalize=self.finalize,
            on_error=self.on_error,
            error_budget=self.error_budget,
            is_kept=True,
            drops_shards=self.delete_marker,
        )

    def check_arguments(self) -> None:
        """Raise TypeError unless both functions can be called with the arguments."""
        Call(function=self.callback, args=(None, *self.args), kwargs=self.kwargs).check_arguments()
        kwargs = add_result(self.finalize, self.args, self.kwargs, None)
        Call(function=self.finalize, args=self.args, kwargs=kwargs).check_arguments()

    def call_each(self, instances: list[Any], budget: Budget) -> Cut | None:
        """Call the callback with each instance; return where that ended, if not at the end.

        Of an atomic batch nothing is done then.
        """
        for number, instance in enumerate(instances):
            if number and not self.atomic and budget.is_used_up():
                return Cut(number)
            try:
                Call(function=self.callback, args=(instance, *self.args), kwargs=self.kwargs).make()
            except DoNotRepeatException:
                # It counts, and there is no repeat_in.
                continue
            except Exception as error:
                return Cut(number, error)
        return None

    def call_finalize(self, result: IterationResult) -> None:
        """Call finalize, with the result where it takes that."""
        kwargs = add_result(self.finalize, self.args, self.kwargs, result)
        Call(function=self.finalize, args=self.args, kwargs=kwargs).make()


def write_iteration(call: IterationCall) -> Written:
    """Return a deferred iteration as typed JSON.

    Raises:
        PayloadError: a part of it cannot travel; the message says which.
    """
    more = Arguments()
    parts = {
        "version": str(VERSION),
        # A text within the text: it is read for batches, and the querysets among the arguments are not.
        "queryset": payloads.dumps(payloads.dumps(call.queryset, "the queryset", more)),
        "callback": payloads.dumps(call.callback, "the callback", more),
        "finalize": payloads.dumps(call.finalize, "finalize", more),
        "getter": payloads.dumps(call.getter, "key_ranges_getter", more),
        "order_field": payloads.dumps(call.order_field),
        "args": payloads.dumps(list(call.args), "args", more, within=1),
        "kwargs": payloads.dumps(call.kwargs, "kwargs", more, within=1),
        "shards": str(call.shards),
        "batch_size": "null" if call.batch_size is None else str(call.batch_size),
        "throttle": payloads.dumps(call.throttle, "_throttle", more),
        "delete_marker": "true" if call.delete_marker else "false",
        "atomic": "true" if call.atomic else "false",
        "on_error": payloads.dumps(call.on_error),
        "error_budget": payloads.dumps(call.error_budget),
    }
    text = "{" + ",".join(f'"{name}":{part}' for name, part in parts.items()) + "}"
    if len(text) > MOST_BYTES:
        raise PayloadError(
            f"The iteration takes {len(text):,} bytes, and {MOST_BYTES:,} is the most. Keep its arguments in the "
            "database or in a file, and pass their key."
        )
    return Written(text, True)


def read_iteration(text: str, *, paged: bool) -> IterationCall:
    """Return the deferred iteration that `write_iteration` was given.

    Args:
        text: what that returned.
        paged: whether its queryset is to be read batch by batch, and not as a whole.

    Raises:
        UnknownNameError: it names what is not here.
        PayloadError: it is no deferred iteration of ours.
    """
    values = payloads.loads(text, Arguments(), within=2)
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise PayloadError("This is no deferred iteration of a version that this release knows.")
    if values.keys() != _FIELDS.keys() or not all(isinstance(values[name], kind) for name, kind in _FIELDS.items()):
        raise PayloadError("A field of this deferred iteration is missing, one too many, or of another type.")
    del values["version"]
    try:
        check_on_error(values["on_error"], values["error_budget"])
    except ValueError as error:
        raise PayloadError(f"A field of this deferred iteration is wrong: {error}") from error
    queryset = payloads.loads(values.pop("queryset"), Arguments(paged=paged))
    given = [values["callback"], values["finalize"]]
    given += [values[name] for name in ("getter", "throttle") if values[name] is not None]
    if not (isinstance(queryset, QuerySet) or is_query(queryset)) or not all(callable(function) for function in given):
        raise PayloadError("What this deferred iteration names is no queryset, or no function.")
    return IterationCall(queryset=queryset, args=tuple(values.pop("args")), **values)
