"""Key ranges of a Datastore kind: divided by samples where Datastore has them, and by one pass over its keys else.

Datastore puts a property `__scatter__` on a small part of all entities, by chance but for good; ordered by it, they are
a sample of the keys. Small kinds have too few, and Firestore in Datastore mode may have none, without a word: then the
keys alone are read once, in their order, which costs little and needs no index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

from soc_tasks.errors import ConfigurationError
from soc_tasks.logic.datastore_keys import KEY, NOTHING, check_value, get_property, is_plain, rank_path, rank_value
from soc_tasks.logic.datastore_queries import copy_query, fetch, fetch_pages, take_query
from soc_tasks.logic.datastore_seeks import Order
from soc_tasks.logic.full_logic import CountedRanges, split_evenly

#: `(start, end)`, half-open; None is an open end.
Range = tuple[Any, Any]
#: `(query, shard_count)` to keys.
RandomKeys = Callable[[Any, int], Iterable[Any]]

#: Keys that are asked for by chance, and that are enough, for each shard.
OVERSAMPLING: Final = 32
ENOUGH: Final = 8
#: What orders the sample.
SCATTER: Final = "__scatter__"


def find_random_keys(query: Any, shard_count: int) -> list[Any]:
    """Return keys by chance, up to 32 for each shard; none where Datastore has none, or no index for it.

    Args:
        query: a query of Datastore's client.
        shard_count: how many shards are wanted.
    """
    return [entity.key for entity in _scatter(query, shard_count, (KEY,))]


def divide(query: Any, shard_count: int, random_keys_getter: RandomKeys | None = None) -> list[Range]:
    """Divide a kind into ranges with about equally many entities.

    Args:
        query: a query of Datastore's client, in the order of a property or, without an order, of the key.
        shard_count: how many ranges, at most.
        random_keys_getter: `(query, shard_count)` to keys, ids or names by chance, instead of those by `__scatter__`.

    Returns:
        Half-open ranges of keys, or of the property's values.

    Raises:
        ValueError: the order falls.
    """
    order = _ascending(query)
    if order.by_key:
        own = random_keys_getter is not None
        found = (random_keys_getter or find_random_keys)(query, shard_count)
        keys = [_as_key(query, one) for one in found]
        bounds = _pick(keys, shard_count, shard_count if own else ENOUGH * shard_count)
        if bounds is not None:
            return _join(bounds)
        keys, total = _pass_over(query, shard_count, (KEY,))
        return _count_evenly(_join(keys[1:]), total)
    if random_keys_getter is not None:
        raise ValueError(f"random_keys_getter divides by keys, and the order is {order.name!r}; leave it out.")
    values = [get_property(entity, order.name) for entity in _scatter(query, shard_count, ())]
    values = [value for value in values if value is not NOTHING and not isinstance(value, (list, dict))]
    bounds = _pick(values, shard_count, ENOUGH * shard_count)
    if bounds is None:
        # A projection does not tell moments from numbers: the entities do.
        keys, total = _pass_over(query, shard_count, (order.name,))
        whole = query._client.get_multi(keys)
        found = [get_property(entity, order.name) for entity in whole]
        values = [value for value in found if value is not NOTHING and not isinstance(value, (list, dict))]
        values.sort(key=rank_value)
        return _count_evenly(_join(_distinct(values[0], values[1:]) if values else []), total)
    return _join(bounds)


def _count_evenly(ranges: list[Range], total: int) -> list[Range]:
    """Return ranges that hold about equally many of a known number."""
    return CountedRanges(ranges, lambda: split_evenly(total, len(ranges)))


def _ascending(query: Any) -> Order:
    order = Order.parse(take_query(query, None)[1])
    if order.descending:
        raise ValueError(f"Key ranges ascend; order by {order.name!r}, not {str(order)!r}.")
    return order


def _as_key(query: Any, value: Any) -> Any:
    """Return a key, or an id or name, as a key of the kind."""
    kind, _ = take_query(query, None)
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return kind.make_key((kind.name, value))
    if not hasattr(value, "flat_path"):
        raise TypeError(f"random_keys_getter must return keys, ids or names, not {value!r:.100}.")
    return value


def _scatter(query: Any, shard_count: int, projection: Sequence[str]) -> list[Any]:
    sampled = copy_query(query, order=(SCATTER,), projection=projection)
    try:
        return fetch(sampled, OVERSAMPLING * shard_count)
    except (ValueError, ConfigurationError):
        # With an inequality, or without a composite index on the properties and __scatter__, which cannot be made
        # everywhere. The pass over all keys is there for that.
        return []


def _pick(found: list[Any], shard_count: int, enough: int) -> list[Any] | None:
    """Return bounds with equally many of a sample between them, or None where it is too small."""
    sample = sorted((value for value in found if is_plain(value)), key=rank_value)
    if len(sample) < max(enough, 1):
        return None
    return _distinct(sample[0], [sample[len(sample) * part // shard_count] for part in range(1, shard_count)])


def _distinct(lowest: Any, values: list[Any]) -> list[Any]:
    """Return bounds in their order, each once, without those that not all editions of Datastore sort alike.

    Nothing comes before the lowest value, so it is no bound.
    """
    ranked = {rank_value(value): value for value in values if is_plain(value)}
    ranked.pop(rank_value(lowest), None)
    return [ranked[rank] for rank in sorted(ranked)]


def _pass_over(query: Any, shard_count: int, projection: Sequence[str]) -> tuple[list[Any], int]:
    """Return the keys that begin the parts of all entities in their order, and how many entities there are.

    Every so many keys one is kept; when they are too many, every second one of them: in the end they lie less than a
    thirty-second of a shard apart.
    """
    ordered = copy_query(query, order=tuple(query.order) or (KEY,), projection=projection)
    kept: list[Any] = []
    step, total = 1, 0
    for entity in fetch_pages(ordered):
        if total % step == 0:
            kept.append(entity.key)
            if len(kept) > 2 * OVERSAMPLING * shard_count:
                kept, step = kept[::2], step * 2
        total += 1
    places = dict.fromkeys(total * part // shard_count // step for part in range(shard_count))
    begins = [kept[place] for place in places if place < len(kept) and (is_plain(kept[place]) or not place)]
    return begins, total


def _join(bounds: list[Any]) -> list[Range]:
    """Return the ranges between bounds; the outermost are open, for entities that come meanwhile."""
    return list(zip([None, *bounds], [*bounds, None], strict=True))


def check_ranges(query: Any, given: Any) -> list[Range]:
    """Return a getter's ranges in their order, without empty ones, if every entity is in one of them.

    Args:
        query: what the getter was given.
        given: what it returned.

    Raises:
        TypeError: it returned something else than ranges.
        ValueError: the ranges overlap, leave a gap or leave entities out.
    """
    from soc_tasks.logic.sharding import read_ranges

    order = _ascending(query)

    def read(bound: Any) -> Any:
        return None if bound is None else _as_key(query, bound) if order.by_key else check_value(bound)

    def rank(bound: Any) -> Any:
        return rank_path(bound.flat_path) if order.by_key else rank_value(bound)

    ranges = [(read(start), read(end)) for start, end in read_ranges(given)]
    ranges = [pair for pair in ranges if pair[0] is None or pair[1] is None or rank(pair[0]) != rank(pair[1])]
    ranges.sort(key=lambda pair: (pair[0] is not None, rank(pair[0]) if pair[0] is not None else 0))
    problem = _find_problem(query, order, ranges, rank)
    if problem is not None:
        shown = ", ".join(f"({start!r}, {end!r})" for start, end in ranges[:100])
        raise ValueError(f"The key ranges [{shown}] {problem}. Ranges are half-open, and None is an open end.")
    return ranges or [(None, None)]


def _find_problem(query: Any, order: Order, ranges: list[Range], rank: Callable[[Any], Any]) -> str | None:
    """Return what is wrong with ranges, or None."""
    from soc_tasks.logic.sharding import MAX_SHARDS

    if not ranges:
        return "leave all entities out" if _exists(query, order) else None
    if len(ranges) > MAX_SHARDS:
        return f"are more than {MAX_SHARDS}"
    for start, end in ranges:
        if start is not None and end is not None and rank(end) < rank(start):
            return f"overlap: {end!r} comes before {start!r}"
    for (_, end), (following, _) in pairwise(ranges):
        if end is None or following is None or rank(following) < rank(end):
            return f"overlap: one begins at {following!r}, before the end {end!r} of another"
        if rank(following) != rank(end):
            return f"leave a gap between {end!r} and {following!r}"
    start, end = ranges[0][0], ranges[-1][1]
    if (start is not None and _exists(query, order, "<", start)) or (
        end is not None and _exists(query, order, ">=", end)
    ):
        return "leave entities out: there are some before the first or behind the last"
    return None


def _exists(query: Any, order: Order, operator: str | None = None, bound: Any = None) -> bool:
    more = [] if operator is None else [(order.name, operator, bound)]
    return bool(fetch(copy_query(query, order=(order.name,), projection=(KEY,), more=more), 1))
