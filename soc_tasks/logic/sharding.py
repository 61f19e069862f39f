"""Key ranges: how the values of an order field are divided among shards.

A getter takes a queryset and a number of shards, and returns half-open ranges `(start, end)` of the order field's
values; None is an open end. The queryset that it is handed is in the order of that field, and nothing else orders it:
that is how a getter learns the field. NULLs come last, so they belong to a range with an open end.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

from django.db import connections, models
from django.db.models import Count, F, Max, Min, Q, Window
from django.db.models.functions import Mod, RowNumber

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.datastore_queries import is_query
from soc_tasks.logic.datastore_ranges import divide
from soc_tasks.logic.filters import coerce_value, get_value_field
from soc_tasks.logic.seek import Order

#: `(start, end)` of values, half-open; None is an open end.
Range = tuple[Any, Any]
#: `(queryset, shard_count)` to ranges.
Getter = Callable[[Any, int], Any]

#: The most shards of one iteration: each is a row and a task, made in one transaction.
MAX_SHARDS: Final = 1000
#: Integers are divided by arithmetic if at least this share of those between the first and the last is there.
DENSE: Final = 0.9
#: Types whose values Python compares as every database does; text has collations, and MariaDB its own order of UUIDs.
_SAME_ORDER: Final = (models.IntegerField, models.FloatField, models.DecimalField, models.DateField, models.TimeField)
#: One more than the greatest UUID.
_UUIDS: Final = 2**128


def check_shard_count(count: Any) -> int:
    """Return the number of shards, or raise ValueError where it is none."""
    if type(count) is not int or not 1 <= count <= MAX_SHARDS:
        raise ValueError(f"The number of shards must be a whole number from 1 to {MAX_SHARDS}, not {count!r}.")
    return count


def default_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Divide by arithmetic where the order field holds integers with few gaps, and by quantiles else.

    Args:
        queryset: what is iterated over, in the order of the field.
        shard_count: how many ranges, at most.
    """
    rows, order = _take(queryset)
    if order.unique and isinstance(get_value_field(order.field), models.IntegerField):
        name = order.name
        found = rows.order_by().aggregate(low=Min(name), high=Max(name), count=Count(name))
        if found["low"] is None:
            return [(None, None)]
        if found["count"] >= DENSE * (found["high"] - found["low"] + 1):
            return _divide(found["low"], found["high"] + 1, shard_count)
    return sampled_key_ranges(queryset, shard_count)


def sequential_int_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Divide the integers between the first and the last by arithmetic, as fits keys that the database counts up.

    Args:
        queryset: what is iterated over, in the order of an integer field; without an order, of the primary key.
        shard_count: how many ranges, at most.

    Raises:
        ValueError: the field holds no integers.
    """
    rows, order = _take(queryset)
    if not isinstance(get_value_field(order.field), models.IntegerField):
        raise ValueError(
            f"sequential_int_key_ranges needs integers, and {order.model._meta.label}.{order.field.name} holds none; "
            "sampled_key_ranges takes every type."
        )
    # Not both in one query: each is a look at one end of the index.
    low = rows.order_by().aggregate(low=Min(order.name))["low"]
    if low is None:
        return [(None, None)]
    return _divide(low, rows.order_by().aggregate(high=Max(order.name))["high"] + 1, shard_count)


def uuid_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Divide all UUIDs by arithmetic, without a look at the rows, as fits random ones (version 4).

    Args:
        queryset: what is iterated over, in the order of a UUID field; without an order, of the primary key.
        shard_count: how many ranges.

    Raises:
        ValueError: the field holds no UUIDs.
    """
    rows, order = _take(queryset)
    if not isinstance(get_value_field(order.field), models.UUIDField):
        raise ValueError(
            f"uuid_key_ranges needs UUIDs, and {order.model._meta.label}.{order.field.name} holds none; "
            "sampled_key_ranges takes every type."
        )
    if connections[rows.db].features.has_native_uuid_field and connections[rows.db].vendor == "mysql":
        # MariaDB sorts them by their last part first.
        return sampled_key_ranges(queryset, shard_count)
    return _join([uuid.UUID(int=bound) for bound in _bounds(0, _UUIDS, shard_count)])


def sampled_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Divide into ranges with equally many rows, in one pass that the database makes over the field's values.

    Args:
        queryset: what is iterated over, in the order of a field; without an order, of the primary key.
        shard_count: how many ranges, at most: rows with the same value are in one range.
    """
    rows, order = _take(queryset)
    count = check_shard_count(shard_count)
    if order.nullable:
        rows = rows.filter((f"{order.name}__isnull", False))
    numbered = rows.order_by().annotate(
        soc_number=Window(RowNumber(), order_by=F(order.name).asc()), soc_total=Window(Count("*"))
    )
    # True for the first row of every part; by remainders, for not every database divides whole numbers as wholes.
    first = numbered.annotate(soc_rest=Mod((F("soc_number") - 1) * count, F("soc_total"))).filter(soc_rest__lt=count)
    lowest, *bounds = first.order_by("soc_number").values_list(order.name, flat=True) or [None]
    return _join([bound for bound in dict.fromkeys(bounds) if bound != lowest])


def datastore_key_ranges(
    queryset: Any, shard_count: int, random_keys_getter: Callable[[Any, int], Any] | None = None
) -> list[Range]:
    """Divide a Datastore kind by a sample of keys, by `__scatter__`; where that gives too few, in a pass over all keys.

    Django's querysets are divided as by `default_key_ranges`, or by the keys that `random_keys_getter` returns.

    Args:
        queryset: a query of Datastore's client, or a queryset; in the order of one property or field.
        shard_count: how many ranges, at most.
        random_keys_getter: `(queryset, shard_count)` to keys by chance, for kinds that are filtered by properties which
            no index has together with `__scatter__`.

    Raises:
        ValueError: the order falls.
    """
    count = check_shard_count(shard_count)
    if is_query(queryset):
        return divide(queryset, count, random_keys_getter)
    if random_keys_getter is None:
        return default_key_ranges(queryset, count)
    rows, order = _take(queryset)
    wanted = [coerce_value(order.field, key, rows.db) for key in random_keys_getter(queryset, count)]
    # The database sorts them, for it alone knows its order.
    found = list(rows.filter((f"{order.name}__in", wanted)).values_list(order.name, flat=True))
    return _join(list(dict.fromkeys(found[len(found) * part // count] for part in range(1, count))) if found else [])


def find_key_ranges(
    logic: ModelLogic,
    shard_count: int,
    *,
    filter: Any = None,
    order: str | None = None,
    getter: Getter | None = None,
) -> list[tuple[str | None, str | None]]:
    """Return the ranges of shards as keys of a logic.

    Args:
        logic: what is iterated over.
        shard_count: how many shards, at most; a getter of one's own may return more.
        filter: narrows the logic.
        order: another order field than the logic's.
        getter: makes the ranges; None: chosen by the type of the order field.

    Raises:
        ValueError: the ranges overlap, leave a gap or leave rows out, or are of another type than the field.
        TypeError: the getter returned something else than ranges.
    """
    if getter is None and shard_count == 1:
        return [(None, None)]
    rows = logic.in_order(filter, order=order)
    given = (getter or default_key_ranges)(rows, shard_count)
    ranges = _check(rows, Order.parse(logic.model, order or logic.order_field), given)
    return [
        tuple(None if bound is None else logic.get_key_at(bound, order=order) for bound in pair)  # type: ignore[misc]
        for pair in ranges
    ]


def _take(queryset: Any) -> tuple[Any, Order]:
    """Return a getter's queryset, each entity once, and its order."""
    given = queryset.query.order_by
    logic = ModelLogic(queryset, given[0] if given else "pk")
    order = Order.parse(logic.model, logic.order_field)
    if order.descending:
        raise ValueError(f"Key ranges ascend; order by {order.name!r}, not {str(order)!r}.")
    return logic.in_order(), order


def _bounds(low: int, end: int, count: int) -> list[int]:
    """Return the whole numbers that divide those from `low` up to `end` into parts of the same size."""
    parts = min(check_shard_count(count), end - low)
    return [low + (end - low) * part // parts for part in range(1, parts)]


def _divide(low: int, end: int, count: int) -> list[Range]:
    return _join(_bounds(low, end, count))


def _join(bounds: list[Any]) -> list[Range]:
    """Return the ranges between bounds; the outermost are open, for rows that come meanwhile."""
    return list(zip([None, *bounds], [*bounds, None], strict=True))


def read_ranges(given: Any) -> list[Range]:
    """Return what a getter returned, if it has the form of ranges; TypeError else."""
    if isinstance(given, Iterator):
        given = list(given)
    if not isinstance(given, (list, tuple)) or not all(isinstance(pair, (list, tuple)) for pair in given):
        raise TypeError(f"key_ranges_getter must return a list of (start, end), not {given!r:.200}.")
    if not all(len(pair) == 2 for pair in given):
        raise TypeError(f"key_ranges_getter must return pairs (start, end), not {given!r:.500}.")
    return [(start, end) for start, end in given]


def _check(rows: Any, order: Order, given: Any) -> list[Range]:
    """Return ranges in their order, without empty ones, if every row is in one of them."""
    pairs = read_ranges(given)
    ranges = [tuple(None if part is None else coerce_value(order.field, part, rows.db) for part in p) for p in pairs]
    ranges = [pair for pair in ranges if pair[0] is None or pair[0] != pair[1]]
    comparable = isinstance(get_value_field(order.field), _SAME_ORDER)
    if comparable:
        # An open end first; only one of two is compared further.
        ranges.sort(key=lambda pair: (pair[0] is not None, pair[0] if pair[0] is not None else 0))
    elif len(ranges) <= MAX_SHARDS:
        ranges = _chain(ranges)
    problem = _find_problem(rows, order, ranges, comparable)
    if problem is not None:
        shown = ", ".join(f"({start!r}, {end!r})" for start, end in ranges[:100])
        raise ValueError(f"The key ranges [{shown}] {problem}. Ranges are half-open, and None is an open end.")
    return [(start, end) for start, end in ranges] or [(None, None)]


def _chain(ranges: list[Any]) -> list[Any]:
    """Return ranges that join on to each other in the order in which they do, whatever the order of their values.

    Those that do not stay as they came: something is wrong with them.
    """
    ends = [end for _, end in ranges if end is not None]
    firsts = [pair for pair in ranges if pair[0] is None or pair[0] not in ends]
    chain, rest = firsts[:1], [pair for pair in ranges if pair is not firsts[0]] if firsts else []
    while rest:
        following = [pair for pair in rest if pair[0] is not None and pair[0] == chain[-1][1]]
        if len(following) != 1:
            return ranges
        chain += following
        rest = [pair for pair in rest if pair is not following[0]]
    return chain or ranges


def _find_problem(rows: Any, order: Order, ranges: list[Any], comparable: bool) -> str | None:
    """Return what is wrong with ranges, or None."""
    if not ranges:
        return "leave all rows out" if rows.exists() else None
    if len(ranges) > MAX_SHARDS:
        return f"are more than {MAX_SHARDS}"
    for start, end in ranges:
        if start is not None and end is not None and _falls(rows, order, start, end, comparable):
            return f"overlap: {end!r} comes before {start!r}"
    for (_, end), (following, _) in pairwise(ranges):
        if end is None or following is None or (comparable and following < end):
            return f"overlap: one begins at {following!r}, before the end {end!r} of another"
        if following != end:
            return f"leave a gap, or overlap, between {end!r} and {following!r}"
    start, end = ranges[0][0], ranges[-1][1]
    outside = Q()
    if start is not None:
        outside |= order.before(order.name, start)
    if end is not None:
        outside |= order.since(order.name, end)
        if order.nullable:
            outside |= Q((f"{order.name}__isnull", True))
    if outside and rows.filter(outside).exists():
        return "leave rows out: there are some before the first or behind the last"
    return None


def _falls(rows: Any, order: Order, start: Any, end: Any, comparable: bool) -> bool:
    """Tell whether a range ends before it begins; where only the database knows, if rows are in between."""
    if comparable:
        return bool(end < start)
    return bool(rows.filter(order.since(order.name, end), order.before(order.name, start)).exists())
