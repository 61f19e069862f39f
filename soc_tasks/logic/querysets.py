"""Querysets as the rows that they mean when they are looked at: compiled to a query for primary keys.

The query is of the database that it was made for. Nothing of Django's own `Query` travels, which has no form that would
survive another release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import BooleanField, F, Func, Model, Q, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.query import ModelIterable

from soc_tasks.errors import PayloadError
from soc_tasks.logic.entity_querysets import ADVICE
from soc_tasks.logic.payloads import UnknownNameError

#: What `packed["sql"]` says where all rows of the table are meant.
_ALL: Final = "all"
#: The name of the primary key in the query.
_KEY: Final = "soc_key"

Pack = Callable[[Any, str], Any]
Unpack = Callable[[Any], Any]

_FIELDS = frozenset({"model", "using", "sql", "order", "reverse", "related", "prefetch", "only", "defer"})


def pack_queryset(queryset: QuerySet[Any], path: str, pack: Pack) -> dict[str, Any]:
    """Return a queryset as plain values.

    Args:
        queryset: of instances; it is not evaluated.
        path: how errors name it.
        pack: packs a value.

    Raises:
        PayloadError: it is sliced, combined, annotated or of values, or has parts that have no name.
    """
    query = queryset.query
    if problem := _find_problem(queryset):
        advice = f" {ADVICE}" if query.is_sliced or query.combinator else ""
        raise PayloadError(
            f"{path} is {problem}, which cannot travel: pass the primary keys, or what makes it up.{advice}"
        )
    packed: dict[str, Any] = {"model": query.get_meta().label, "using": queryset.db, "sql": None}
    compiled = None if _is_whole(query) else _compile(queryset)
    if _is_whole(query):
        packed["sql"] = _ALL
    elif compiled is not None:
        packed["sql"] = [compiled[0], pack(compiled[1], f"the parameters of {path}")]
    if query.order_by or not query.default_ordering:
        packed["order"] = list(query.order_by)
    if not query.standard_ordering:
        packed["reverse"] = True
    if query.select_related:
        related = query.select_related
        packed["related"] = True if related is True else list(_spell(related))
    if lookups := queryset._prefetch_related_lookups:  # type: ignore[attr-defined]
        packed["prefetch"] = list(lookups)
    names, deferred = query.deferred_loading
    if names:
        packed["defer" if deferred else "only"] = sorted(names)
    return packed


def _compile(queryset: QuerySet[Any]) -> tuple[str, list[Any]] | None:
    """Return the query for the primary keys, with its parameters; None where no row can match."""
    connection: Any = connections[queryset.db]
    rows = queryset.order_by()
    # Which keys are among them stays the same, and SQLite would make the whole list to see which are there twice.
    rows.query.distinct = False
    try:
        sql, params = rows.values(**{_KEY: F("pk")}).query.get_compiler(using=queryset.db).as_sql()
    except EmptyResultSet:
        # filter(pk__in=[]), or none(): there is no query for it.
        return None
    if connection.vendor == "postgresql":
        # Its driver wraps values in types of its own: written out, they are text.
        return connection.ops.compose_sql(sql, params).replace("%", "%%"), []
    return sql, [bytes(value) if isinstance(value, memoryview) else value for value in params]


def _is_whole(query: Any) -> bool:
    """Tell whether a query means every row of its table."""
    joined = [alias for alias in query.alias_map if query.alias_refcount[alias]]
    return not query.where and len(joined) <= 1 and not query.is_empty()


def _find_problem(queryset: QuerySet[Any]) -> str | None:
    query = queryset.query
    if queryset._iterable_class is not ModelIterable:
        return "a queryset of values"
    for part, problem in (
        (query.is_sliced, "a sliced queryset"),
        (query.combinator, "a combined queryset"),
        (query.annotations, "a queryset with annotations"),
        (query.select_for_update, "a queryset that locks rows"),
        (query.distinct_fields, "a queryset that is distinct on fields"),
        (query.extra or query.extra_tables or query.extra_order_by, "a queryset with extra()"),
        (not all(isinstance(name, str) for name in query.order_by), "a queryset that is ordered by expressions"),
        (
            not all(isinstance(name, str) for name in queryset._prefetch_related_lookups),  # type: ignore[attr-defined]
            "a queryset with Prefetch objects",
        ),
    ):
        if part:
            return problem
    return None


def _spell(related: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, inner in related.items():
        yield prefix + name
        yield from _spell(inner, f"{prefix}{name}__")


class _IsAmong(Func):
    """Whether a row is one of a query's, looked up row by row.

    `pk IN (…)` lets a database make the whole list for each batch that is read of it. The function is NULL in place of
    false, as no condition minds. Not EXISTS: PostgreSQL would join it, and may begin with the query.
    """

    output_field = BooleanField()
    conditional = True

    def __init__(self, key: Any, sql: str, params: tuple[Any, ...]) -> None:
        super().__init__(key)
        self.sql = sql
        self.params = params

    def as_sql(self, compiler: Any, connection: Any, **_: Any) -> tuple[str, tuple[Any, ...]]:  # type: ignore[override]
        """Return the condition."""
        key, params = compiler.compile(self.source_expressions[0])
        name, rows = connection.ops.quote_name(_KEY), connection.ops.quote_name("soc_rows")
        found = f"SELECT {rows}.{name} FROM ({self.sql}) {rows} WHERE {rows}.{name} = {key} LIMIT 1"
        return f"({found}) IS NOT NULL", (*self.params, *params)


def unpack_queryset(packed: Any, unpack: Unpack, *, paged: bool = False) -> QuerySet[Any]:
    """Return a queryset of the rows that are meant.

    Args:
        packed: what `pack_queryset` returned.
        unpack: unpacks a value.
        paged: whether it is read in many small parts: then no query may cost as much as the whole.

    Raises:
        UnknownNameError: there is no such model or alias here.
        ValueError: it is no such thing.
    """
    if not isinstance(packed, dict) or packed.keys() - _FIELDS or not isinstance(packed.get("model"), str):
        raise ValueError("what is tagged 'queryset' is none")
    try:
        model: type[Model] = apps.get_model(packed["model"])
    except LookupError as error:
        raise UnknownNameError(f"There is no model {packed['model']:.200} here.") from error
    alias = packed.get("using")
    if not isinstance(alias, str) or alias not in connections:
        raise UnknownNameError(f"There is no database {alias!r:.100} here, which a queryset is of.")
    # Of the model's own class, and without what its managers filter by: that is in the query.
    queryset: QuerySet[Any] = type(model._default_manager.all())(model=model, using=alias)
    if packed["sql"] is None:
        return queryset.none()
    if packed["sql"] != _ALL:
        # Compiled by Django on the other side, signed, and kept in the state.
        sql, params = packed["sql"][0], tuple(unpack(packed["sql"][1]))
        queryset = queryset.filter(_IsAmong("pk", sql, params) if paged else Q(pk__in=RawSQL(sql, params)))  # noqa: S611
    if "order" in packed:
        queryset = queryset.order_by(*packed["order"])
    if "reverse" in packed:
        queryset = queryset.reverse()
    if "related" in packed:
        queryset = queryset.select_related(*(() if packed["related"] is True else packed["related"]))
    queryset = queryset.prefetch_related(*packed.get("prefetch", ()))
    if "only" in packed:
        return queryset.only(*packed["only"])
    return queryset.defer(*packed.get("defer", ()))
