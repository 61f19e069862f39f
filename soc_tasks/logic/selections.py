"""Selections: rows that are chosen for one run of an iterative task, out of those that the task goes over.

The queryset is compiled where it is chosen, signed, and kept in the state until the iteration has ended, as that of a
deferred iteration is. The task carries nothing of it but a word that it is there.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db.models import QuerySet

from soc_tasks.conf import get_settings
from soc_tasks.errors import FatalTaskError, PayloadError
from soc_tasks.logic import calls, payloads
from soc_tasks.logic.arguments import Arguments
from soc_tasks.logic.deferring import submit
from soc_tasks.logic.envelopes import CallEndedError, CallNotHereError
from soc_tasks.logic.plans import Plan, Selection, check_shards, make_source
from soc_tasks.logic.sharding import check_shard_count
from soc_tasks.logic.tasks import build_task, refuse_event_loop
from soc_tasks.logic.urls import resolve_target
from soc_tasks.state import get_state
from soc_tasks.values import TaskHandle, TaskRequest

#: Of the text's form.
VERSION: Final = 1
#: Characters of a signature, which goes before the text.
_SIGNATURE: Final = 64


def start_over_selection(
    url: str | Callable[..., Any],
    queryset: QuerySet[Any],
    context: Mapping[str, Any] | None = None,
    queue: str = "default",
    *,
    url_args: Sequence[Any] | None = None,
    url_kwargs: Mapping[str, Any] | None = None,
    shards: int | None = None,
    admitted: bool = False,
    using: str | None = None,
) -> TaskHandle:
    """Start an iterative task over those of its entities that are in a queryset. It does not repeat.

    Args:
        url, context, queue, url_args, url_kwargs: as for `startTask`. A task without a logic goes over the queryset.
        queryset: of the task's model and database; looked at when the iteration runs, not now. Its order and what it
            selects do not matter.
        shards: in place of the task's own number.
        admitted: whether it was judged already that the task may be started, where its access keeps the queue out.
        using: database alias; in an atomic block of it, the task exists if and only if that commits.

    Raises:
        ValueError: the task does not iterate, its entities are of another model or database, or the queryset is sliced
            or combined; or as for `startTask`.
        PayloadError, EnqueueError: as for `startTask`.
    """
    refuse_event_loop("start_over_selection")
    target = resolve_target(url, url_args, url_kwargs)
    if not target.options.iterates or (target.options.plan.is_kept):
        raise ValueError(f"{target.path} is no iterative task, so that it cannot run over a selection.")
    rows = take_keys(queryset)
    if shards is not None:
        check_shard_count(shards)
    check_selection(target.options.plan, rows, context or {}, shards)
    request = TaskRequest(url=target.path, context=context)
    task, handle = build_task(request, queue, admitted=admitted, selection=True)
    submit(task, _write(rows, shards), using or get_settings().database)
    return handle


def take_keys(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return a queryset of the same rows, each once, without what else a queryset brings along.

    Raises:
        ValueError: it is sliced or combined.
    """
    query = queryset.query
    for part, problem in ((query.is_sliced, "sliced"), (query.combinator, "combined with another one")):
        if part:
            raise ValueError(f"A selection cannot be {problem}; narrow it by filters.")
    plain: QuerySet[Any] = queryset.order_by().select_related(None).prefetch_related(None).defer(None)
    has_values = queryset._fields is not None  # type: ignore[attr-defined]
    if has_values or query.annotations or query.distinct_fields or query.extra or query.extra_tables:
        wrapped: QuerySet[Any] = queryset.model._base_manager.using(queryset.db).filter(pk__in=plain.values("pk"))
        return wrapped
    return plain


def check_selection(plan: Plan, queryset: QuerySet[Any], context: Mapping[str, Any], shards: int | None = None) -> None:
    """Refuse a selection that a task cannot run over.

    Raises:
        ValueError: it cannot, or the context is none of the task's.
    """
    narrowed = _narrow(plan, Selection(queryset=queryset, paged=False), shards)
    try:
        check_shards(narrowed, make_source(narrowed, context))
    except FatalTaskError as error:
        raise ValueError(str(error)) from error


def narrow(plan: Plan, start_id: str, *, paged: bool) -> Plan:
    """Return a plan with the selection that is kept for a run of it.

    Args:
        plan: that of the view.
        start_id: id of the run.
        paged: whether it is read batch by batch, and not as a whole.

    Raises:
        CallEndedError: the iteration has ended.
        CallNotHereError: it is not there.
        PayloadError: it is none of ours.
        UnknownNameError: it names a model that is not here.
    """
    values = payloads.loads(_read(start_id), Arguments(), within=1)
    if not isinstance(values, dict) or values.get("version") != VERSION or not isinstance(values.get("rows"), str):
        raise PayloadError("This is no selection of a version that this release knows.")
    rows = payloads.loads(values["rows"], Arguments(paged=paged))
    if not isinstance(rows, QuerySet) or not isinstance(values.get("shards"), int | None):
        raise PayloadError("What is kept as a selection is none.")
    return _narrow(plan, Selection(queryset=rows, paged=paged), values.get("shards"))


def _narrow(plan: Plan, selection: Selection, shards: int | None) -> Plan:
    number = plan.shards if shards is None else shards
    return dataclasses.replace(plan, selection=selection, shards=number, is_kept=True, repeat_in=None)


def _write(rows: QuerySet[Any], shards: int | None) -> bytes:
    text = payloads.dumps({
        "version": VERSION, "rows": payloads.dumps(rows, "the selection", Arguments()), "shards": shards,
    })  # fmt: skip
    if len(text) > calls.MOST_BYTES:
        raise PayloadError(f"The selection takes {len(text):,} bytes, and {calls.MOST_BYTES:,} is the most.")
    return zlib.compress((calls.sign(text) + text).encode("ascii"), 6)


def _read(start_id: str) -> str:
    packed = get_state().get_payload(start_id)
    if packed == b"":
        raise CallEndedError
    if packed is None:
        raise CallNotHereError("The selection of this iteration is not in the state.")
    try:
        text = zlib.decompressobj().decompress(packed, calls.MOST_BYTES + _SIGNATURE).decode("ascii")
    except (zlib.error, ValueError) as error:
        raise PayloadError(f"What is kept as a selection is damaged: {error}") from error
    signature, text = text[:_SIGNATURE], text[_SIGNATURE:]
    if not calls.is_signed(text, signature):
        raise PayloadError(
            "The signature of this selection is not ours. If SECRET_KEY was changed, put the old one into "
            "SECRET_KEY_FALLBACKS and retry the task."
        )
    return text
