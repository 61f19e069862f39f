"""Where a batch begins and how the database gets there: orders, keys, seeks, and the index they need.

A key is the place of one entity in an order, as compact JSON: `[17]` in the order of the primary key,
`["email","a@example.com"]` in that of a unique field, `["title","b",17]` in any other, where the primary key breaks
ties; `["title",null,17]` among the NULLs, which come last in both directions. Without its last part such a key means
the place where the entities with that value begin. A key names its order, so that it cannot be taken for another's.

A batch is read by seeks that one index answers in order, at a cost that does not grow with the table: the rest of the
ties at the start (`f = ? AND pk >= ?`), the values behind it (`f > ?`), the ties before the end or the NULLs. Row
values, `OR` and OFFSET would each make some database read the whole table.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import Any

import simplejson
from django.db import connections, models
from django.db.models import Q

from soc_tasks.logic.filters import coerce_value, encode_value, find_field, get_value_field

#: A condition and the order in which the rows that meet it follow.
Seek = tuple[Q, tuple[str, ...]]

#: Fields whose values are equal in the database exactly if they are equal here (text has collations).
_EXACT_FIELDS = (
    models.IntegerField,
    models.FloatField,
    models.DecimalField,
    models.DateField,
    models.TimeField,
    models.DurationField,
    models.UUIDField,
    models.BooleanField,
)
#: SQLite keeps decimals as floats, and Django reads this many digits back.
_SQLITE_DECIMAL_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Order:
    """The order of one field, with the primary key behind it where values repeat.

    Args:
        model: the model that is ordered.
        field: the concrete field.
        name: how lookups call it: "pk", or the attname (a foreign key's name would follow the related ordering).
        descending: whether both field and primary key fall.
        is_hinted: whether SQLite reads it, which is told then what to look up.
    """

    model: Any
    field: Any
    name: str
    descending: bool = False
    is_hinted: bool = False

    @classmethod
    def parse(cls, model: Any, text: Any) -> Order:
        """Return the order that `text` ("field" or "-field") names.

        Raises:
            ValueError: it is no concrete field of the model, or one whose values have no order.
        """
        name = text.removeprefix("-") if isinstance(text, str) else None
        field = find_field(model, name)
        if field is None or isinstance(field, models.BinaryField | models.JSONField):
            names = ", ".join(f.name for f in model._meta.concrete_fields)
            raise ValueError(
                f"{text!r} is no order of {model._meta.label}: it takes one concrete field with plain values, "
                f'"-" before it for descending, of {names} or pk.'
            )
        return cls(model, field, "pk" if field is model._meta.pk else field.attname, text.startswith("-"))

    def __str__(self) -> str:
        """Return the order as `parse` takes it."""
        return f"-{self.name}" if self.descending else self.name

    @property
    def nullable(self) -> bool:
        """Return whether entities may lack a value."""
        return bool(self.field.null) or isinstance(self.field, models.GeneratedField)

    @property
    def unique(self) -> bool:
        """Return whether the field alone tells entities apart."""
        return bool(self.field.unique) and not self.nullable

    def check_exact(self, alias: str) -> None:
        """Refuse a field whose values the database does not give back as it compares them.

        Raises:
            ValueError: a key would miss its own entity.
        """
        target = get_value_field(self.field)
        if connections[alias].vendor != "sqlite" or not isinstance(target, models.DecimalField):
            return
        if target.max_digits is None or target.max_digits > _SQLITE_DECIMAL_DIGITS:
            raise ValueError(
                f"{self.model._meta.label} cannot be read in the order of {self.field.name!r} on SQLite, which "
                f"keeps no more than {_SQLITE_DECIMAL_DIGITS} digits of a decimal exactly."
            )

    def is_same(self, one: Any, other: Any) -> bool:
        """Return whether two values are known to be equal to the database, too."""
        return bool(one == other) or encode_value(self.field, one) == encode_value(self.field, other)

    def equal(self, value: Any) -> Q:
        """Return the condition for ties at `value`."""
        # Django writes `= true` as the bare column, which SQLite does not look up in an index.
        is_bool = isinstance(get_value_field(self.field), models.BooleanField)
        ties = Q((f"{self.name}__in", [value]) if is_bool else (self.name, value))
        return Q(_Rare(ties)) if self.is_hinted else ties

    def since(self, name: str, value: Any) -> Q:
        """Return the condition for `value` and what follows it."""
        return Q((f"{name}__lte" if self.descending else f"{name}__gte", value))

    def after(self, name: str, value: Any) -> Q:
        """Return the condition for what follows `value`."""
        return Q((f"{name}__lt" if self.descending else f"{name}__gt", value))

    def before(self, name: str, value: Any) -> Q:
        """Return the condition for what comes before `value`."""
        return Q((f"{name}__gt" if self.descending else f"{name}__lt", value))

    def by(self, *names: str) -> tuple[str, ...]:
        """Return the terms of ORDER BY."""
        return tuple(f"-{name}" if self.descending else name for name in names)


class _Rare(models.ExpressionWrapper):  # type: ignore[type-arg] # no argument at run time
    """A condition that SQLite is told to take for rare (https://www.sqlite.org/lang_corefunc.html#likelihood).

    To two bounds of the queryset's own it gives 1/64 of the rows, whatever they are: where few values have more each,
    it would read, and sort, all between. So ties are told to be a little fewer; what is truly rare goes before them.
    """

    def __init__(self, condition: Q) -> None:
        super().__init__(condition, output_field=models.BooleanField())

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Return the SQL with the hint."""
        sql, parameters = self.as_sql(compiler, connection)
        return f"likelihood({sql}, 0.01)", parameters


@dataclass(frozen=True, slots=True)
class Position:
    """A place in an order: a value and, among ties, a primary key; without it, where the value begins."""

    value: Any
    pk: Any = None


def encode_key(order: Order, position: Position) -> str:
    """Return the key of a position.

    Raises:
        ValueError: a value is of a type that cannot stand in a key.
    """
    parts: list[Any] = [] if order.name == "pk" else [order.name]
    parts.append(None if position.value is None else encode_value(order.field, position.value))
    if position.pk is not None:
        parts.append(encode_value(order.model._meta.pk, position.pk))
    return simplejson.dumps(parts, separators=(",", ":"))


def decode_key(order: Order, key: Any, alias: str) -> Position:
    """Return the position that a key stands for.

    Args:
        order: the order that the key must belong to.
        key: what the caller was given as a key.
        alias: the database that will compare it.

    Raises:
        ValueError: it is no key of this order.
    """
    try:
        if not isinstance(key, str):
            raise ValueError(f"a key is a str, not {type(key).__name__}")
        parts = simplejson.loads(key)
        head = [] if order.name == "pk" else [order.name]
        sizes = (1,) if order.unique else (1, 2)
        if not isinstance(parts, list) or parts[: len(head)] != head or len(parts) - len(head) not in sizes:
            raise ValueError("it does not belong to this order")
        value, *rest = parts[len(head) :]
        if value is None and not order.nullable:
            raise ValueError("the field is never NULL")
        return Position(
            value=None if value is None else _take(order.field, value, alias),
            pk=_take(order.model._meta.pk, rest[0], alias) if rest else None,
        )
    except (ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"{reprlib.repr(key)} is no key of {order.model._meta.label} in the order of {order}: {reason}."
        ) from error


def _take(field: Any, raw: Any, alias: str) -> Any:
    """Return the value that `raw` stands for, if `raw` is how it is written in keys."""
    value = coerce_value(field, raw, alias)
    written = encode_value(field, value)
    if type(written) is not type(raw) or written != raw:
        raise ValueError(f"{raw!r} is not how keys write {field.name}")
    return value


def plan_seeks(order: Order, start: Position | None, end: Position | None) -> list[Seek]:
    """Return the seeks, at most three, whose rows one after the other are those from `start` up to `end`.

    Args:
        order: the order.
        start: the first position that counts; None from the beginning.
        end: the first position that no longer counts; None to the end.
    """
    if order.unique:
        return [(_between(order, start, end), order.by(order.name))]
    seeks: list[Seek] = []
    if start is None or start.value is not None:
        seeks += _plan_values(order, start, end)
    if order.nullable and (end is None or (end.value is None and end.pk is not None)):
        nulls = Q((f"{order.name}__isnull", True))
        if start is not None and start.value is None and start.pk is not None:
            nulls &= order.since("pk", start.pk)
        if end is not None:
            nulls &= order.before("pk", end.pk)
        # By name too, though they are all alike: else PostgreSQL may look for them along the primary key.
        seeks.append((nulls, order.by(order.name, "pk")))
    return seeks


def look_up(queryset: Any, condition: Q) -> Any:
    """Return a queryset narrowed by the condition of a seek, which stands before its other conditions.

    SQLite takes the first bound of a column that it reads for the end of the index: behind one of the queryset's own,
    `created >= '2024-01-01'`, each seek would begin there.
    """
    rows = queryset.filter(condition)
    given, found = len(queryset.query.where.children), rows.query.where.children
    rows.query.where.children = found[given:] + found[:given]
    return rows


def _plan_values(order: Order, start: Position | None, end: Position | None) -> list[Seek]:
    """Return the seeks for the entities that have a value."""
    if end is not None and end.value is None:
        end = None
    ties = order.by("pk")
    if start is not None and end is not None and order.is_same(start.value, end.value):
        if end.pk is None:
            return []
        group = order.equal(end.value) & order.before("pk", end.pk)
        return [(group if start.pk is None else group & order.since("pk", start.pk), ties)]
    seeks: list[Seek] = []
    if start is not None and start.pk is not None:
        seeks.append((order.equal(start.value) & order.since("pk", start.pk) & _short_of(order, end), ties))
    seeks.append((_between(order, start, end), order.by(order.name, "pk")))
    if end is not None and end.pk is not None:
        last = order.equal(end.value) & order.before("pk", end.pk)
        seeks.append((last if start is None else last & _behind(order, start), ties))
    return seeks


def _between(order: Order, start: Position | None, end: Position | None) -> Q:
    """Return the condition for the values behind the start's and before the end's."""
    condition = Q()
    if start is not None:
        condition &= order.since(order.name, start.value) if order.unique else _behind(order, start)
    if end is not None:
        condition &= order.before(order.name, end.value)
    if order.nullable and not condition:
        condition = Q((f"{order.name}__isnull", False))
    return condition


def _behind(order: Order, start: Position) -> Q:
    step = order.since if start.pk is None else order.after
    return step(order.name, start.value)


def _short_of(order: Order, end: Position | None) -> Q:
    """Return the condition that keeps the ties at the start from passing an end with another value."""
    if end is None:
        return Q()
    condition = order.before(order.name, end.value)
    if end.pk is not None and not isinstance(get_value_field(order.field), _EXACT_FIELDS):
        # To a collation "A" and "a" may be one value; then it is the primary key that ends the range.
        condition |= order.before("pk", end.pk)
    return condition


def find_missing_index(order: Order, alias: str) -> str | None:
    """Return which index the seeks of `order` lack, as a sentence, or None.

    Args:
        order: the order.
        alias: the database that will be read.
    """
    meta = order.model._meta.concrete_model._meta
    if order.name == "pk" or order.unique or not meta.managed:
        # Nobody here can tell which indexes an unmanaged table has.
        return None
    label = f"{meta.label}: reading it in the order of {order.field.name!r} costs more per batch as the table grows"
    if order.field not in meta.local_concrete_fields:
        return f"{label}, for the field lies in a parent's table, apart from the primary key. Use order_field='pk'."
    wanted = [order.field.name, meta.pk.name]
    found = [_get_names(meta, columns) for columns in _get_indexes(meta)]
    if order.field.db_index or order.field.unique:
        found.append([order.field.name])
    enough = _holds_pk_implicitly(meta.pk, alias) and [order.field.name] in found
    if enough or any(names[:2] in (wanted, [f"-{name}" for name in wanted]) for names in found):
        return None
    name = f"{meta.model_name}_{order.field.name}_seek"[:30]
    return f"{label}. Add models.Index(fields={wanted!r}, name={name!r}) to its Meta.indexes."


def _get_indexes(meta: Any) -> list[list[str]]:
    """Return the columns of every index that holds all rows in the order of plain columns."""
    indexes = [
        [f"-{name}" if direction else name for name, direction in index.fields_orders]
        for index in meta.indexes
        if index.condition is None and not index.opclasses and index.suffix in ("", "idx", "btree")
    ]
    constraints = [
        list(constraint.fields)
        for constraint in meta.constraints
        if isinstance(constraint, models.UniqueConstraint)
        and constraint.condition is None
        and not getattr(constraint, "opclasses", None)
    ]
    return [*indexes, *constraints, *(list(names) for names in meta.unique_together)]


def _get_names(meta: Any, columns: list[str]) -> list[str]:
    """Return columns by their fields' names ("program_id" and "program" are one)."""
    return [("-" if name[0] == "-" else "") + meta.get_field(name.removeprefix("-")).name for name in columns]


def _holds_pk_implicitly(pk: Any, alias: str) -> bool:
    """Return whether every index of this database ends in the primary key."""
    connection = connections[alias]
    if connection.vendor == "sqlite":
        # Only this very type makes the column the rowid.
        return bool(pk.db_type(connection) == "integer")
    return bool(connection.vendor == "mysql")
