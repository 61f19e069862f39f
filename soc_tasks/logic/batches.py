"""Batches of entities: `getBatchOfData` over models and querysets, and the registry of logics by name.

A logic is anything with `getBatchOfData(filter, start_key, batch_size)`, which returns a list of entities and the key
of the first entity of the next batch, None at the end. `ModelLogic` is the one for Django's models, `DatastoreLogic`
that for kinds of Google's Datastore.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import FunctionType
from typing import Any

from django.db import connections
from django.db.models import Manager, Model, Q, QuerySet, prefetch_related_objects

from soc_tasks.logic.datastore_batches import DatastoreLogic as DatastoreLogic  # noqa: PLC0414 - a name of this module
from soc_tasks.logic.datastore_queries import is_query
from soc_tasks.logic.entity_querysets import (
    get_queryset,
    get_seekable,
    is_grouped,
    load_again,
    matching,
    narrow,
    prepare,
)
from soc_tasks.logic.filters import check_posted_filter, coerce_value
from soc_tasks.logic.full_logic import FullLogic, KeyRange, check_batch_size, take_start_key
from soc_tasks.logic.seek import (
    Order,
    Position,
    Seek,
    decode_key,
    encode_key,
    find_missing_index,
    look_up,
    plan_seeks,
)


class UnknownLogicError(LookupError, ValueError):
    """No logic is registered under this name."""


class ModelLogic(FullLogic):
    """Batches of a model's entities, each entity once, in the order of one field.

    Args:
        source: a model class (all that its default manager gives), a manager or a queryset. The queryset's filters,
            database, select_related, prefetch_related, only, defer and annotations are kept; its ordering is not.
        order_field: a concrete field of the model, "-" before it for descending; NULLs come last either way.
        batch_size: entities in a batch, 1 to 1,000.

    Raises:
        TypeError: the source is of another kind.
        ValueError: the queryset cannot be read from a key on (sliced, combined, values, DISTINCT ON, ...), the
            primary key is composite, or order_field or batch_size is none.
    """

    def __init__(self, source: Any, order_field: str = "pk", batch_size: int = 100) -> None:
        """Check the source, so that a mistake shows where it is made."""
        self._queryset = prepare(get_queryset(source))
        self.model: Any = self._queryset.model
        self.order_field = str(Order.parse(self.model, order_field))
        self.batch_size = check_batch_size(batch_size)

    def __repr__(self) -> str:
        """Name the model and the order."""
        return f"ModelLogic({self.model._meta.label}, order_field={self.order_field!r}, batch_size={self.batch_size})"

    @property
    def using(self) -> str:
        """Return the alias of the database that is read."""
        return str(self._queryset.db)

    def on(self, using: str) -> ModelLogic:
        """Return the same logic on another database alias."""
        return self._over(self._queryset.using(using))

    def within(self, selection: QuerySet[Any], *, paged: bool = True) -> ModelLogic:
        """Return the same logic, narrowed to the rows of a queryset.

        Args:
            selection: of the same model and database; its order does not matter.
            paged: whether rows are looked up in it one by one, as is best for batches, and not in all of it at once.

        Raises:
            ValueError: it is of another model or database.
        """
        model, label = selection.model, self.model._meta.label
        if model._meta.concrete_model is not self.model._meta.concrete_model:
            raise ValueError(f"the selection is of {model._meta.label}, and the entities are of {label}")
        if selection.db != self.using:
            raise ValueError(f"the selection is on {selection.db!r}, and the entities are on {self.using!r}")
        narrowed = (
            matching(self._queryset, selection)
            if paged
            else self._queryset.filter(pk__in=selection.order_by().values("pk"))
        )
        return self._over(narrowed)

    def _over(self, queryset: Any) -> ModelLogic:
        other = ModelLogic(queryset, self.order_field, self.batch_size)
        other.is_paced = self.is_paced
        return other

    def getBatchOfData(
        self,
        filter: Any = None,
        start_key: str | None = None,
        batch_size: int | None = None,
        *,
        order: str | None = None,
        end_key: str | None = None,
    ) -> tuple[list[Any], str | None]:
        """Return one batch of entities and the key of the next.

        Args:
            filter: a dict of lookups or a Q to narrow the source; a str here is the start_key.
            start_key: the key of the first entity; None begins at the first there is. Where that entity is gone, the
                batch begins with the one that followed it.
            batch_size: entities at most; None takes the logic's.
            order: another field for this call; keys belong to their order.
            end_key: the key before which to stop; None goes to the end.

        Returns:
            The entities, and the key of the first entity of the next batch or None.

        Raises:
            ValueError: a key is not one of this logic and order, or an argument is out of bounds.
        """
        filter, start_key = take_start_key(filter, start_key)
        size = self.batch_size if batch_size is None else check_batch_size(batch_size)
        ordering = self._parse_order(order)
        start = None if start_key is None else decode_key(ordering, start_key, self.using)
        end = None if end_key is None else decode_key(ordering, end_key, self.using)
        queryset = narrow(self._queryset, filter)
        # One row more tells the next key.
        rows = _read(get_seekable(queryset, ordering.field), plan_seeks(ordering, start, end), size + 1)
        entities = rows[:size]
        if is_grouped(queryset):
            entities = load_again(queryset, entities)
        if lookups := queryset._prefetch_related_lookups:
            prefetch_related_objects(entities, *lookups)
        return entities, _get_key(rows[size], ordering) if len(rows) > size else None

    def count(self, filter: Any = None) -> int | None:
        """Return how many entities there are, narrowed by a filter; costs a look at each of them."""
        return int(narrow(self._queryset, filter).count())

    def in_order(self, filter: Any = None, *, order: str | None = None) -> Any:
        """Return a queryset of the entities, each once, in the order of the field; NULLs where the database has them.

        Args:
            filter: as for `getBatchOfData`.
            order: another field than the logic's.
        """
        ordering = self._parse_order(order)
        queryset = get_seekable(narrow(self._queryset, filter), ordering.field)
        return queryset.order_by(*ordering.by(ordering.name))

    def get_key(self, entity: Any, *, order: str | None = None) -> str:
        """Return the key at which a batch begins with `entity`.

        Args:
            entity: an entity of the model, its order field as the database has it.
            order: another field than the logic's.
        """
        return _get_key(entity, self._parse_order(order))

    def get_key_at(self, value: Any, *, order: str | None = None) -> str:
        """Return the key at which the entities with this value of the order field begin, whether there are any.

        Args:
            value: a value of the order field; None for where the NULLs begin.
            order: another field than the logic's.

        Raises:
            ValueError: the field cannot take the value.
        """
        ordering = self._parse_order(order)
        if value is not None:
            value = coerce_value(ordering.field, value, self.using)
        elif not ordering.nullable:
            raise ValueError(f"{self.model._meta.label}.{ordering.field.name} is never NULL.")
        return encode_key(ordering, Position(value))

    def check_filter(self, given: Any) -> dict[str, Any]:
        """Return an untrusted filter as lookups that are safe for `getBatchOfData`.

        Args:
            given: what was posted.

        Raises:
            ValueError: it names anything but the model's concrete fields and the allowed lookups.
        """
        return check_posted_filter(self.model, given, using=self.using)

    def join_filters(self, ours: Any, posted: dict[str, Any]) -> Any:
        """Return the filter that is both."""
        return (Q(**ours) if isinstance(ours, dict) else ours) & Q(**posted)

    def find_key_ranges(self, shard_count: int, **options: Any) -> list[KeyRange]:
        """Return the ranges of keys of at most so many shards; options as of `sharding.find_key_ranges`."""
        from soc_tasks.logic.sharding import find_key_ranges

        return find_key_ranges(self, shard_count, **options)

    def missing_index(self, order: str | None = None) -> str | None:
        """Return which index the order lacks, as a sentence for the one who can add it, or None.

        Args:
            order: another field than the logic's.
        """
        return find_missing_index(Order.parse(self.model, order or self.order_field), self.using)

    def _parse_order(self, order: str | None) -> Order:
        ordering = Order.parse(self.model, self.order_field if order is None else order)
        ordering.check_exact(self.using)
        return replace(ordering, is_hinted=True) if connections[self.using].vendor == "sqlite" else ordering


_registry: dict[str, tuple[Any, Any]] = {}


def register_logic(name: str, logic: Any) -> None:
    """Make a logic known by a name, for iterations that name it in their context.

    Args:
        name: any text, dots allowed; it is never imported.
        logic: an object with getBatchOfData, a model class or a queryset.

    Raises:
        TypeError: the logic is of another kind.
        ValueError: the name is empty or stands for another logic.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"The name of a logic is a text, not {name!r}.")
    if isinstance(logic, str):
        raise TypeError(f"register_logic({name!r}) takes a logic, not the name {logic!r}.")
    if name in _registry and _registry[name][0] is not logic:
        raise ValueError(f"The name {name!r} stands for another logic already: {_registry[name][1]!r}.")
    _registry.setdefault(name, (logic, resolve_logic(logic)))


def get_logic(name: str) -> Any:
    """Return the logic that is registered under a name.

    Raises:
        UnknownLogicError: there is none (a LookupError and a ValueError).
    """
    if not isinstance(name, str) or name not in _registry:
        known = ", ".join(sorted(_registry)) or "none"
        raise UnknownLogicError(
            f"No logic is registered under {name!r}. Known: {known}. Pass the model itself, or register_logic() one."
        )
    return _registry[name][1]


def is_logic(value: Any) -> bool:
    """Return whether `value` is meant as a logic: what `resolve_logic` takes, a plain callable never."""
    return (
        isinstance(value, str | QuerySet | Manager)
        or is_query(value)
        or (isinstance(value, type) and issubclass(value, Model))
        or callable(getattr(value, "getBatchOfData", None))
    )


def resolve_logic(value: Any) -> Any:
    """Return the object with getBatchOfData that `value` stands for.

    Args:
        value: such an object, a model class, a manager, a queryset, a query of Datastore, or a registered name.

    Raises:
        TypeError: it is none of these.
        UnknownLogicError: no logic has this name.
    """
    if isinstance(value, str):
        return get_logic(value)
    if callable(getattr(value, "getBatchOfData", None)):
        if isinstance(value, type) and isinstance(inspect.getattr_static(value, "getBatchOfData"), FunctionType):
            raise TypeError(f"{value.__name__} is a class: give an instance of it, {value.__name__}(...).")
        return value
    if is_logic(value):
        return make_paced(value)
    raise TypeError(
        f"{value!r} is no logic: it must have getBatchOfData, or be a model class, a queryset or a registered name."
    )


def make_paced(source: Any, order_field: str | None = None) -> ModelLogic | DatastoreLogic:
    """Return the logic of a source, whose batches take the size that their duration asks for, in iterations."""
    made = (
        DatastoreLogic(source, order_field=order_field) if is_query(source) else ModelLogic(source, order_field or "pk")
    )
    made.is_paced = True
    return made


def _read(queryset: Any, seeks: list[Seek], limit: int) -> list[Any]:
    """Return the first rows of all seeks in turn; what is prefetched comes later, for the whole batch at once."""
    plain = queryset.prefetch_related(None)
    rows: list[Any] = []
    for condition, ordering in seeks:
        rows += look_up(plain, condition).order_by(*ordering)[: limit - len(rows)]
        if len(rows) >= limit:
            break
    return rows


def _get_key(entity: Any, order: Order) -> str:
    value = entity.pk if order.name == "pk" else getattr(entity, order.field.attname)
    return encode_key(order, Position(value, None if order.unique else entity.pk))
