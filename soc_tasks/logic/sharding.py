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
from django.db.models.functions import Mod, NullIf, Rank, RowNumber

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.datastore_queries import is_query
from soc_tasks.logic.datastore_ranges import divide
from soc_tasks.logic.filters import coerce_value, get_value_field
from soc_tasks.logic.full_logic import CountedRanges, KeyRange, split_evenly
from soc_tasks.logic.seek import Order, look_up

#: `(start, end)` of values, half-open; None is an open end.
Range = tuple[Any, Any]
#: `(queryset, shard_count)` to ranges.
Getter = Callable[[Any, int], Any]

#: The most shards of one iteration: each is a row and a task, made in one transaction.
MAX_SHARDS: Final = 1000
#: Integers are divided by arithmetic if at least this share of those between the first and the last is there.
DENSE: Final = 0.9
#: In how many places, and at how many integers in each, it is looked how dense they are.
_PROBES: Final = 16
_PROBED: Final = 64
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
    """Divide a whole table by arithmetic where the field holds integers with few gaps; by quantiles everything else.

    How many gaps there are is looked up in a few places of the index.

    Args:
        queryset: what is iterated over, in the order of the field.
        shard_count: how many ranges, at most.
    """
    rows, order = _take(queryset)
    if order.unique and isinstance(get_value_field(order.field), models.IntegerField) and _is_whole(rows):
        low, high = _find_ends(rows, order)
        if low is not None and _is_dense(rows, order, low, high):
            ranges = _divide(low, high + 1, shard_count)
            return CountedRanges(ranges, lambda: split_evenly(rows.count(), len(ranges)))
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
    low, high = _find_ends(rows, order)
    if low is None:
        return CountedRanges([(None, None)], lambda: [rows.count()])
    ranges = _divide(low, high + 1, shard_count)

    def count() -> list[int]:
        # Of what lies between the ends alone: beyond them the ends were looked for already.
        closed = zip([low, *(end for _, end in ranges[:-1])], [*(end for _, end in ranges[:-1]), high + 1], strict=True)
        numbers = [_count_between(rows, order, start, end) for start, end in closed]
        if order.nullable:
            numbers[-1] += rows.order_by().filter((f"{order.name}__isnull", True)).count()
        return numbers

    return CountedRanges(ranges, count)


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
    by_value = F(order.name).asc()
    numbered: dict[str, Any] = {
        "soc_row": Window(RowNumber(), order_by=by_value),
        "soc_total": Window(Count("*")),
        # The number of the first with the same value, as the database compares them.
        **({} if order.unique else {"soc_tie": Window(Rank(), order_by=by_value)}),
        **({"soc_values": Window(Count(order.name))} if order.nullable else {}),
    }
    values = F("soc_values") if order.nullable else F("soc_total")
    nulls_first = order.nullable and connections[rows.db].features.order_by_nulls_first
    place = F("soc_row") - (F("soc_total") - values if nulls_first else 0) - 1
    # True for the first row of every part; by remainders, for not every database divides whole numbers as wholes.
    begins = Q(soc_place__gte=0, soc_place__lt=values, soc_rest__gte=0, soc_rest__lt=count)
    found = list(
        rows.order_by()
        .annotate(**numbered)
        .annotate(soc_place=place, soc_rest=Mod(place * count, NullIf(values, 0)))
        # The first of all tells how many there are, even where none has a value.
        .filter(begins | Q(soc_row=1))
        .order_by("soc_row")
        .values("soc_place", *numbered, soc_value=F(order.name))
    )
    total = found[0]["soc_total"] if found else 0
    bounds: dict[int, Any] = {}
    for row in found:
        start = row["soc_place"] - row["soc_row"] + row.get("soc_tie", row["soc_row"])
        if row["soc_value"] is not None and start:
            bounds.setdefault(start, row["soc_value"])
    sizes = [end - start for start, end in pairwise([0, *bounds, total])]
    return CountedRanges(_join(list(bounds.values())), lambda: sizes)


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
) -> list[KeyRange]:
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
    # The database itself has sorted what ours return.
    is_sorted = getter is None or getter in _OURS
    ranges = _check(rows, Order.parse(logic.model, order or logic.order_field), given, is_sorted)
    keys: list[KeyRange] = [
        tuple(None if bound is None else logic.get_key_at(bound, order=order) for bound in pair)  # type: ignore[misc]
        for pair in ranges
    ]
    return given.like(keys) if is_sorted and isinstance(given, CountedRanges) else keys


#: Whose ranges need no look at the rows to be believed.
_OURS: Final = (default_key_ranges, sequential_int_key_ranges, uuid_key_ranges, sampled_key_ranges)


def _is_whole(rows: Any) -> bool:
    """Tell whether rows are all of a table, so that the ends of an index are theirs."""
    query = rows.query
    joined = [alias for alias in query.alias_map if query.alias_refcount[alias]]
    return not (query.where or len(joined) > 1 or query.annotations or query.distinct or query.is_empty())


def _find_ends(rows: Any, order: Order) -> tuple[Any, Any]:
    """Return the first and the last value, or None for both.

    Not both in one query: each is a look at one end of the index, up to the first row that counts.
    """
    low = rows.order_by().aggregate(low=Min(order.name))["low"]
    return (None, None) if low is None else (low, rows.order_by().aggregate(high=Max(order.name))["high"])


def _count_between(rows: Any, order: Order, start: Any, end: Any) -> int:
    between = order.since(order.name, start) & order.before(order.name, end)
    return int(look_up(rows.order_by(), between).count())


def _is_dense(rows: Any, order: Order, low: int, high: int) -> bool:
    """Tell whether few of the integers between two are missing, by those in a few places."""
    span = high - low + 1
    if span <= _PROBES * _PROBED:
        return False  # So few are divided exactly.
    missing = 0
    for number in range(_PROBES):
        start = low + (span - _PROBED) * number // (_PROBES - 1)
        missing += _PROBED - _count_between(rows, order, start, start + _PROBED)
        if missing > (1 - DENSE) * _PROBES * _PROBED:
            return False
    return True


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


def _check(rows: Any, order: Order, given: Any, is_sorted: bool) -> list[Range]:
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
    problem = _find_problem(rows, order, ranges, comparable, is_sorted)
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


def _find_problem(rows: Any, order: Order, ranges: list[Any], comparable: bool, is_sorted: bool) -> str | None:
    """Return what is wrong with ranges, or None."""
    if not ranges:
        return "leave all rows out" if rows.exists() else None
    if len(ranges) > MAX_SHARDS:
        return f"are more than {MAX_SHARDS}"
    for start, end in ranges:
        if not is_sorted and start is not None and end is not None and _falls(rows, order, start, end, comparable):
            return f"overlap: {end!r} comes before {start!r}"
    for (_, end), (following, _) in pairwise(ranges):
        if end is None or following is None or (comparable and following < end):
            return f"overlap: one begins at {following!r}, before the end {end!r} of another"
        if following != end:
            return f"leave a gap, or overlap, between {end!r} and {following!r}"
    start, end = ranges[0][0], ranges[-1][1]
    outside = []
    if start is not None:
        outside.append(order.before(order.name, start))
    if end is not None:
        outside.append(order.since(order.name, end))
        if order.nullable:
            outside.append(Q((f"{order.name}__isnull", True)))
    # Each for itself: with OR some databases read the whole table.
    if any(look_up(rows, condition).exists() for condition in outside):
        return "leave rows out: there are some before the first or behind the last"
    return None


def _falls(rows: Any, order: Order, start: Any, end: Any, comparable: bool) -> bool:
    """Tell whether a range ends before it begins; where only the database knows, if rows are in between."""
    if comparable:
        return bool(end < start)
    return bool(look_up(rows, order.since(order.name, end) & order.before(order.name, start)).exists())
