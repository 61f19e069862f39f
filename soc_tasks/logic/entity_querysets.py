"""Querysets such that conditions and an order can be added, and each entity comes once: what batches are read from."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Manager, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.db.models.lookups import IsNull


def get_queryset(source: Any) -> Any:
    """Return a queryset of what a model class, a manager or a queryset stands for.

    Raises:
        TypeError: the source is of another kind.
        ValueError: the model has no table of its own.
    """
    if isinstance(source, type) and issubclass(source, Model):
        if source._meta.abstract or source._meta.swapped:
            raise ValueError(f"{source.__name__} has no table of its own (it is abstract or swapped).")
        return source._default_manager.all()
    if isinstance(source, QuerySet | Manager):
        return source.all()
    raise TypeError(f"ModelLogic takes a model class or a queryset, not {source!r}.")


#: What to do instead of slicing or combining. Not a subquery: it would be looked at anew for each batch.
ADVICE: Final = (
    "Iterate over the model, narrowed by conditions (Q(...) | Q(...) in place of a union), or by the primary keys "
    "as they are now: filter(pk__in=list(queryset.values_list('pk', flat=True)))."
)


def prepare(queryset: Any) -> Any:
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
        advice = f" {ADVICE}" if query.is_sliced or query.combinator else ""
        raise ValueError(f"{label} cannot be read in batches: {'; '.join(refused)}.{advice}")
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
    return matching(plain.prefetch_related(*queryset._prefetch_related_lookups), queryset)


def _get_plain(queryset: Any) -> Any:
    """Return all entities of the queryset's model, from the same database."""
    plain = queryset.model._base_manager.all()
    return plain if queryset._db is None else plain.using(queryset._db)


def matching(queryset: Any, narrowed: Any) -> Any:
    """Return what of `queryset` is in `narrowed`, looked up by primary key, each row for itself."""
    inner = narrowed.order_by().filter(pk=OuterRef("pk"))
    inner.query.distinct = inner.query.select_for_update = False
    # Not Exists(): PostgreSQL would join it, and read the joined table from its beginning for every batch.
    return queryset.filter(IsNull(Subquery(inner.values("pk")[:1]), False))


def narrow(queryset: Any, filter: Any) -> Any:
    """Return the queryset with the caller's filter, entities still once each."""
    if not filter:
        return queryset
    if isinstance(filter, Q):
        narrowed = queryset.filter(filter)
    elif isinstance(filter, dict):
        narrowed = queryset.filter(**filter)
    else:
        raise TypeError(f"filter must be a dict of lookups or a Q, not {type(filter).__name__}.")
    return matching(queryset, narrowed) if _repeats_rows(narrowed.query) else narrowed


def is_grouped(queryset: Any) -> bool:
    """Return whether the queryset's annotations aggregate."""
    return bool(queryset.query.group_by)


def get_seekable(queryset: Any, field: Any) -> Any:
    """Return the queryset such that an index gives its order and every row holds its key."""
    if is_grouped(queryset):
        # GROUP BY all columns, as most databases need it, sorts the whole table.
        return matching(_get_plain(queryset), queryset).only(field.name)
    names, deferred = queryset.query.deferred_loading
    if not names:
        return queryset
    if not deferred:
        return queryset.only(*names, field.name)
    return queryset.defer(None).defer(*(names - {field.name, field.attname}))


def load_again(queryset: Any, rows: list[Any]) -> list[Any]:
    """Return the rows as the queryset gives them, with what it aggregates; those gone meanwhile are left out."""
    found = {entity.pk: entity for entity in queryset.prefetch_related(None).filter(pk__in=[row.pk for row in rows])}
    return [found[row.pk] for row in rows if row.pk in found]
