"""Batches of entities: `getBatchOfData` over models and querysets, and the registry of logics by name.

A logic is anything with `getBatchOfData(filter, start_key, batch_size)`, which returns a list of entities and the key
of the first entity of the next batch, None at the end. `ModelLogic` is the one for Django's models, `DatastoreLogic`
that for kinds of Google's Datastore.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from django.db.models import Manager, Model, OuterRef, Q, QuerySet, Subquery, prefetch_related_objects
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.db.models.lookups import IsNull

from soc_tasks.logic.datastore_batches import DatastoreLogic as DatastoreLogic  # noqa: PLC0414 - a name of this module
from soc_tasks.logic.datastore_queries import is_query
from soc_tasks.logic.filters import check_posted_filter, coerce_value
from soc_tasks.logic.full_logic import FullLogic, KeyRange, check_batch_size, take_start_key
from soc_tasks.logic.seek import (
    Order,
    Position,
    Seek,
    decode_key,
    encode_key,
    find_missing_index,
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
        self._queryset = _prepare(_get_queryset(source))
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
        other = ModelLogic(self._queryset.using(using), self.order_field, self.batch_size)
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
        queryset = _narrow(self._queryset, filter)
        # One row more tells the next key.
        rows = _read(_get_seekable(queryset, ordering.field), plan_seeks(ordering, start, end), size + 1)
        entities = rows[:size]
        if _is_grouped(queryset):
            entities = _load_again(queryset, entities)
        if lookups := queryset._prefetch_related_lookups:
            prefetch_related_objects(entities, *lookups)
        return entities, _get_key(rows[size], ordering) if len(rows) > size else None

    def count(self, filter: Any = None) -> int | None:
        """Return how many entities there are, narrowed by a filter; costs a look at each of them."""
        return int(_narrow(self._queryset, filter).count())

    def in_order(self, filter: Any = None, *, order: str | None = None) -> Any:
        """Return a queryset of the entities, each once, in the order of the field; NULLs where the database has them.

        Args:
            filter: as for `getBatchOfData`.
            order: another field than the logic's.
        """
        ordering = self._parse_order(order)
        queryset = _get_seekable(_narrow(self._queryset, filter), ordering.field)
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
        return ordering


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


def _get_queryset(source: Any) -> Any:
    if isinstance(source, type) and issubclass(source, Model):
        if source._meta.abstract or source._meta.swapped:
            raise ValueError(f"{source.__name__} has no table of its own (it is abstract or swapped).")
        return source._default_manager.all()
    if isinstance(source, QuerySet | Manager):
        return source.all()
    raise TypeError(f"ModelLogic takes a model class or a queryset, not {source!r}.")


def _prepare(queryset: Any) -> Any:
    """Return the queryset such that conditions and an order can be added and each entity comes once."""
    query, label = queryset.query, queryset.model._meta.label
    reasons = {
        "its primary key is composite": queryset.model._meta.is_composite_pk,
        "the queryset is sliced": query.is_sliced,
        "the queryset combines others (union, intersection, difference)": query.combinator,
        "values() and values_list() give no entities": queryset._fields is not None,
        "distinct() on fields leaves rows out by order": query.distinct_fields,
        "extra(tables=...) may repeat rows": query.extra_tables,
        "a window function would see one batch only": any(
            getattr(annotation, "contains_over_clause", False) for annotation in query.annotations.values()
        ),
    }
    if refused := [reason for reason, holds in reasons.items() if holds]:
        raise ValueError(f"{label} cannot be read in batches: {'; '.join(refused)}.")
    if not query.standard_ordering:
        # reverse() would turn our own order round.
        queryset = queryset.reverse()
    if not _repeats_rows(queryset.query):
        # Rows are distinct by their primary key; saying so would make the database sort them.
        queryset.query.distinct = False
        return queryset
    if query.annotations or query.extra:
        raise ValueError(
            f"{label} cannot be read in batches: a join to many repeats entities, with annotations of their own. "
            "Narrow the queryset by Exists() or pk__in instead."
        )
    return _without_repeats(queryset)


def _repeats_rows(query: Any) -> bool:
    """Return whether a join may give an entity more than one row."""
    return not query.group_by and any(
        isinstance(rel := getattr(join, "join_field", None), ForeignObjectRel) and not rel.field.unique
        for alias, join in query.alias_map.items()
        if query.alias_refcount[alias]
    )


def _without_repeats(queryset: Any) -> Any:
    """Return a queryset of the same entities, and what comes with them, that asks for its joins row by row."""
    plain = _get_plain(queryset)
    for name in (
        "select_related",
        "deferred_loading",
        "select_for_update",
        "select_for_update_nowait",
        "select_for_update_skip_locked",
        "select_for_update_of",
        "select_for_no_key_update",
    ):
        setattr(plain.query, name, getattr(queryset.query, name))
    return _matching(plain.prefetch_related(*queryset._prefetch_related_lookups), queryset)


def _get_plain(queryset: Any) -> Any:
    """Return all entities of the queryset's model, from the same database."""
    plain = queryset.model._base_manager.all()
    return plain if queryset._db is None else plain.using(queryset._db)


def _matching(queryset: Any, narrowed: Any) -> Any:
    """Return what of `queryset` is in `narrowed`, looked up by primary key, each row for itself."""
    inner = narrowed.order_by().filter(pk=OuterRef("pk"))
    inner.query.distinct = inner.query.select_for_update = False
    # Not Exists(): PostgreSQL would join it, and read the joined table from its beginning for every batch.
    return queryset.filter(IsNull(Subquery(inner.values("pk")[:1]), False))


def _narrow(queryset: Any, filter: Any) -> Any:
    """Return the queryset with the caller's filter, entities still once each."""
    if not filter:
        return queryset
    if isinstance(filter, Q):
        narrowed = queryset.filter(filter)
    elif isinstance(filter, dict):
        narrowed = queryset.filter(**filter)
    else:
        raise TypeError(f"filter must be a dict of lookups or a Q, not {type(filter).__name__}.")
    return _matching(queryset, narrowed) if _repeats_rows(narrowed.query) else narrowed


def _is_grouped(queryset: Any) -> bool:
    """Return whether the queryset's annotations aggregate."""
    return bool(queryset.query.group_by)


def _get_seekable(queryset: Any, field: Any) -> Any:
    """Return the queryset such that an index gives its order and every row holds its key."""
    if _is_grouped(queryset):
        # GROUP BY all columns, as most databases need it, sorts the whole table.
        return _matching(_get_plain(queryset), queryset).only(field.name)
    names, deferred = queryset.query.deferred_loading
    if not names:
        return queryset
    if not deferred:
        return queryset.only(*names, field.name)
    return queryset.defer(None).defer(*(names - {field.name, field.attname}))


def _load_again(queryset: Any, rows: list[Any]) -> list[Any]:
    """Return the rows as the queryset gives them, with what it aggregates; those gone meanwhile are left out."""
    found = {entity.pk: entity for entity in queryset.prefetch_related(None).filter(pk__in=[row.pk for row in rows])}
    return [found[row.pk] for row in rows if row.pk in found]


def _read(queryset: Any, seeks: list[Seek], limit: int) -> list[Any]:
    """Return the first rows of all seeks in turn; what is prefetched comes later, for the whole batch at once."""
    plain = queryset.prefetch_related(None)
    rows: list[Any] = []
    for condition, ordering in seeks:
        rows += plain.filter(condition).order_by(*ordering)[: limit - len(rows)]
        if len(rows) >= limit:
            break
    return rows


def _get_key(entity: Any, order: Order) -> str:
    value = entity.pk if order.name == "pk" else getattr(entity, order.field.attname)
    return encode_key(order, Position(value, None if order.unique else entity.pk))
