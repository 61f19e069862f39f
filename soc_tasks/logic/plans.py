"""How an iteration gets its entities: what the decorator says, together with what the task's context asks for."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from django.db.models import QuerySet

from soc_tasks.conf import get_settings
from soc_tasks.errors import FatalTaskError, PayloadError
from soc_tasks.logic import found_items, payloads
from soc_tasks.logic.batches import ModelLogic, resolve_logic
from soc_tasks.logic.full_logic import FullLogic
from soc_tasks.logic.sharding import Getter
from soc_tasks.logic.throttling import Throttle
from soc_tasks.logic.urls import find_options
from soc_tasks.state import get_state
from soc_tasks.state.transactions import ClientAlias
from soc_tasks.values import FailedItem

#: The context keys that steer an iteration.
CONTROL_KEYS = ("logic", "filter", "fields", "order", "start_key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows that one run is narrowed to.

    Args:
        queryset: the rows.
        paged: whether it is read batch by batch, and not as a whole.
    """

    queryset: QuerySet[Any]
    paged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to iterate over, and how.

    Args:
        logic: where batches come from; None: the context names it.
        filter: restriction given in code.
        order: order field, "-" for descending.
        start_key: where to begin.
        batch_size: entities a batch.
        atomic: whether a batch, its cursor and the next task commit together.
        using: alias of atomic; None: the logic's.
        throttle: asked between batches whether to go on.
        repeat_in: seconds after which the whole iteration starts again.
        time_limit: seconds that one delivery may use.
        shards: into how many ranges of keys the entities are divided, at most.
        key_ranges_getter: makes these ranges; None: by the type of the order field.
        finalize: what follows when all is done: the name of a URL pattern, a task view, or a function.
        on_error: whether a failing batch is tried again ("retry"), or its failing entities are given up ("skip").
        error_budget: how many of them, or what share, may be given up before the run ends as failed; None: any.
        is_kept: whether the plan itself is kept in the state, under the iteration's id, to be cleared at its end.
        drops_shards: whether the records of the shards are dropped at the end.
        selection: what this run is narrowed to.
    """

    logic: Any = None
    filter: Any = None
    order: str | None = None
    start_key: str | None = None
    batch_size: int | None = None
    atomic: bool = False
    using: str | None = None
    repeat_in: float | None = None
    throttle: Throttle | None = None
    time_limit: float | None = None
    shards: int = 1
    key_ranges_getter: Getter | None = None
    finalize: Any = None
    on_error: str = "retry"
    error_budget: int | float | None = None
    is_kept: bool = False
    drops_shards: bool = False
    selection: Selection | None = None

    @property
    def finalizes_itself(self) -> bool:
        """Tell whether finalize is a function, which is run as the iteration's last slice."""
        return callable(self.finalize) and find_options(self.finalize) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A plan with its context: ready to fetch."""

    logic: Any
    filter: Any
    order: str | None
    start_key: str | None
    batch_size: int | None

    @property
    def using(self) -> str | None:
        """Return the alias that the entities are read from, where the logic tells."""
        using = getattr(self.logic, "using", None)
        return using if isinstance(using, str) else None

    @property
    def first_size(self) -> int | None:
        """Return how many entities the first batch has where they steer themselves, or None where the size is given."""
        if self.batch_size is not None or not getattr(self.logic, "is_paced", False):
            return None
        return int(self.logic.batch_size)

    @property
    def place(self) -> str | None:
        """Return the place that the entities are in, where the logic tells: an alias, or that of a Datastore client."""
        return ClientAlias(self.logic.client) if self.is_in_datastore else self.using

    @property
    def is_in_datastore(self) -> bool:
        """Tell whether the entities are in Google's Datastore."""
        return isinstance(self.logic, FullLogic) and self.logic.in_datastore

    def fetch(self, start_key: str | None, *, end_key: str | None = None, limit: int | None = None) -> Any:
        """Return `(entities, next_start_key)` of the batch that begins at `start_key`.

        Raises:
            TypeError: the logic returned something else.
        """
        wanted: dict[str, Any] = {"filter": self.filter, "start_key": start_key}
        if (size := limit or self.batch_size) is not None:
            wanted["batch_size"] = size
        if self.order is not None:
            wanted["order"] = self.order
        if end_key is not None:
            wanted["end_key"] = end_key
        batch = _call(self.logic.getBatchOfData, wanted)
        if not isinstance(batch, tuple) or len(batch) != 2:
            raise TypeError(
                f"getBatchOfData of {type(self.logic).__name__} must return (entities, next_start_key), "
                f"not {batch!r:.100}."
            )
        return batch

    def get_key(self, entity: Any, place: int = 0) -> str:
        """Return the key at which a batch begins with an entity, where the logic tells; its place matters not."""
        key: str = self.logic.get_key(entity, order=self.order)
        return key

    def get_item_key(self, entity: Any, key: str | None, next_key: str | None) -> str:
        """Return the key by which an entity is found again: of a model or kind, in the order that never changes.

        Args:
            entity: the entity.
            key: that of the batch which begins with it.
            next_key: that of what follows it.

        Raises:
            FatalTaskError: a custom logic's `get_key` returns no key.
        """
        if isinstance(self.logic, FullLogic):
            return self.logic.get_key(entity, order=self.logic.key_order)
        if (get_key := self._find_get_key()) is not None:
            key = get_key(entity)
            if not isinstance(key, str):
                raise FatalTaskError(
                    f"get_key of {type(self.logic).__name__} must return the key at which a batch begins with the "
                    f"entity, a str, not {key!r:.100}."
                )
        return found_items.join_keys(key, next_key)

    def find_item(self, item: FailedItem) -> list[Any]:
        """Return the one entity of an item, by its key, as `get_item_key` made it; empty where it is gone."""
        if not isinstance(self.logic, FullLogic):
            return found_items.find_again(self._fetch_one, item.key, item.entity, self._find_get_key())
        source = dataclasses.replace(self, order=self.logic.key_order)
        return [entity for entity in source.fetch(item.key, limit=1)[0] if source.get_key(entity) == item.key]

    def _fetch_one(self, key: str | None) -> tuple[list[Any], str | None]:
        entities, next_key = self.fetch(key, limit=1)
        return list(entities)[:1], next_key

    def _find_get_key(self) -> Callable[[Any], str] | None:
        """Return what tells the key of an entity, where a logic that need not have it has it."""
        get_key = getattr(self.logic, "get_key", None)
        if get_key is None:
            return None
        names, anything = _parameters(getattr(get_key, "__func__", get_key))
        return partial(get_key, order=self.order) if anything or "order" in names else get_key

    def give_up(self, entity: Any, place: int, item: FailedItem) -> None:
        """Keep an entity that failed, in the open transaction."""
        get_state().add_failed_item(item)

    def settle(self, entities: list[Any]) -> bool:
        """Note that entities are done, in the open transaction; return whether they still had to be."""
        return True

    def count(self) -> int | None:
        """Return how many entities there are, or None where the logic cannot tell."""
        count = getattr(self.logic, "count", None)
        if count is None:
            return None
        total = _call(count, {"filter": self.filter})
        return total if isinstance(total, int) else None


@lru_cache(maxsize=256)
def _parameters(function: Any) -> tuple[frozenset[str], bool]:
    parameters = inspect.signature(function).parameters.values()
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)), anything


def _call(function: Any, wanted: dict[str, Any]) -> Any:
    """Call a logic with those arguments that it takes; refuse to drop one that is set."""
    names, anything = _parameters(getattr(function, "__func__", function))
    if anything:
        return function(**wanted)
    known = {name: value for name, value in wanted.items() if name in names}
    for name in set(wanted) - set(known):
        # A logic that knows no batch size has one of its own; the rest would change what is iterated over.
        if name != "batch_size" and wanted[name] is not None:
            raise FatalTaskError(f"{function!r} takes no argument {name!r}, but one was asked for.")
    return function(**known)


def make_source(plan: Plan, context: Mapping[str, Any]) -> Source:
    """Join a plan with what the context asks for.

    Raises:
        FatalTaskError: the context asks for something that is not there or not allowed.
    """
    try:
        asked = {key: _read_control(key, context[key]) for key in CONTROL_KEYS if key in context}
        logic = resolve_logic(plan.logic if plan.logic is not None else _find_logic(asked, plan.selection))
        if plan.using is not None and isinstance(logic, FullLogic):
            logic = logic.on(plan.using)
        if plan.selection is not None:
            if not isinstance(logic, ModelLogic):
                raise ValueError(f"a selection narrows models and querysets, not {type(logic).__name__}")
            logic = logic.within(plan.selection.queryset, paged=plan.selection.paged)
        posted = _posted_filter(asked)
        if posted is not None and hasattr(logic, "check_filter"):
            posted = logic.check_filter(posted)
    except (ValueError, TypeError, LookupError) as error:
        raise FatalTaskError(f"The iteration cannot start: {error}") from error
    return Source(
        logic=logic,
        filter=_both(logic, plan.filter, posted),
        order=asked.get("order", plan.order),
        start_key=asked.get("start_key", plan.start_key),
        batch_size=plan.batch_size,
    )


def check_shards(plan: Plan, source: Source) -> None:
    """Refuse several shards where they cannot be.

    Raises:
        ValueError: of a logic of its own, in a falling order, or from a start key on.
    """
    if plan.shards == 1 and plan.key_ranges_getter is None:
        return
    if not isinstance(source.logic, FullLogic):
        raise ValueError(
            "only models and querysets, and Datastore's kinds, can be divided into shards, not "
            f"{type(source.logic).__name__}; use shards=1"
        )
    if (source.order or source.logic.order_field).startswith("-"):
        raise ValueError("shards need an order that ascends; use shards=1 for a falling one")
    if source.start_key is not None:
        raise ValueError("a start_key is one place to begin at, and several shards begin at several; use shards=1")


def check_skipping(plan: Plan, source: Source) -> None:
    """Refuse to skip where a batch cannot be halved.

    Raises:
        ValueError: the logic takes no batch size.
    """
    names, anything = _parameters(getattr(source.logic.getBatchOfData, "__func__", source.logic.getBatchOfData))
    if plan.on_error == "skip" and not anything and "batch_size" not in names:
        raise ValueError(
            f'on_error="skip" halves a batch that fails, and getBatchOfData of {type(source.logic).__name__} takes no '
            "batch_size; give it that argument"
        )


def find_missing_index(plan: Plan) -> str | None:
    """Return which index the plan's order lacks, as a sentence, or None where that cannot be told."""
    if plan.logic is None or find_problem(plan) is not None:
        return None
    logic = make_source(plan, {}).logic
    return logic.missing_index(plan.order) if isinstance(logic, FullLogic) else None


def find_problem(plan: Plan) -> str | None:
    """Return why a plan can never work, or None where it can, or where the context has yet to name a logic."""
    if plan.logic is None:
        return None
    try:
        source = make_source(plan, {})
        if isinstance(source.logic, FullLogic):
            source.logic.missing_index(plan.order)
        check_shards(plan, source)
        check_skipping(plan, source)
    except (FatalTaskError, ValueError, TypeError, LookupError) as error:
        return str(error)
    settings = get_settings()
    in_datastore = settings.state == "datastore"
    if plan.atomic and (source.is_in_datastore or source.using is not None) and source.is_in_datastore != in_datastore:
        return explain_two_stores(source)
    state = settings.database
    if plan.atomic and source.using not in (None, state):
        return (
            f"atomic=True needs the entities and soc_tasks' tables in one database, but the entities are on "
            f"{source.using!r} and SOC_TASKS['DATABASE'] is {state!r}."
        )
    return None


def explain_two_stores(source: Source) -> str:
    """Return why a batch cannot commit together with a state that is in another kind of store."""
    places = ("Datastore", "SQL") if source.is_in_datastore else ("SQL", "Datastore")
    return (
        f"atomic=True needs the entities and soc_tasks' state in one store, but {source.logic!r} reads {places[0]}, "
        f"and SOC_TASKS['STATE'] is {get_settings().state!r}, which is {places[1]}. Leave atomic out, and make the "
        "view safe to repeat on a batch."
    )


def _find_logic(asked: Mapping[str, Any], selection: Selection | None) -> Any:
    name = asked.get("logic")
    if name is None and selection is not None:
        return selection.queryset.model
    if not isinstance(name, str) or not name:
        raise ValueError(
            "neither the decorator nor the context names a logic: write @iterative_task(Model), "
            "or post logic=<registered name>"
        )
    return name


def _read_control(key: str, value: Any) -> Any:
    """Read a value, or its JSON text: the early form posts `filter` as JSON."""
    if isinstance(value, str) and (key in ("filter", "fields") or value[:1] == '"'):
        try:
            value = payloads.loads(value)
        except PayloadError as error:
            raise ValueError(f"{key} is no JSON: {error}") from error
    if key in ("filter", "fields"):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f"{key} must be an object of field lookups, not {type(value).__name__}")
    elif value is not None and not isinstance(value, str):
        raise ValueError(f"{key} must be a string, not {type(value).__name__}")
    return value or None


def _posted_filter(asked: Mapping[str, Any]) -> dict[str, Any] | None:
    if asked.get("filter") is not None and asked.get("fields") is not None:
        raise ValueError("filter and fields are the same thing; post one")
    given = asked.get("filter") or asked.get("fields")
    return dict(given) if given else None


def _both(logic: Any, ours: Any, posted: dict[str, Any] | None) -> Any:
    """Return the filter that is both; a copy, so that nothing leaks from one request into the next."""
    if not posted:
        return dict(ours) if isinstance(ours, dict) else ours
    if not ours:
        return posted
    if isinstance(ours, dict) and not set(ours) & set(posted):
        return {**ours, **posted}
    if isinstance(logic, FullLogic):
        return logic.join_filters(ours, posted)
    raise FatalTaskError(
        f"The decorator and the context both restrict {', '.join(sorted(set(ours) & set(posted)))}, "
        f"which {type(logic).__name__} cannot join."
    )
