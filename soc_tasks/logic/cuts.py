"""Where a range of keys can be cut: looked up in the index, at a cost of no more than the keys that are passed over.

What stands between two keys is asked of the database, which alone knows its collations and its order of UUIDs.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.plans import Source
from soc_tasks.logic.seek import Order, Position, decode_key, encode_key, look_up, plan_seeks


def count_between(source: Source, start_key: str | None, end_key: str | None) -> int:
    """Return how many entities a range holds.

    Args:
        source: what is iterated over: a `ModelLogic`.
        start_key, end_key: the half-open range; None is an open end.
    """
    rows, order = _get_rows(source)
    return sum(look_up(rows, condition).count() for condition, _ in _plan(source.logic, order, start_key, end_key))


def find_key_behind(source: Source, start_key: str | None, end_key: str | None, number: int) -> str | None:
    """Return the key of the entity behind the first so many of a range, or None where there are no more.

    Args:
        source, start_key, end_key: as for `count_between`.
        number: how many entities are passed over.
    """
    rows, order = _get_rows(source)
    for condition, ordering in _plan(source.logic, order, start_key, end_key):
        part = look_up(rows, condition)
        # Of an index, by one statement that reads nothing else: not how batches are fetched, and not for each batch.
        for value, pk in part.order_by(*ordering).values_list(order.name, "pk")[number : number + 1]:
            return encode_key(order, Position(value, None if order.unique else pk))
        number -= part.count()
    return None


def is_before(source: Source, start_key: str | None, end_key: str) -> bool:
    """Tell whether a key stands before another, with a row of the table from the one on and before the other.

    A row may be none of the source's. Where there is none, the answer is no, though the one may stand before the other.

    Args:
        source: as for `count_between`.
        start_key: the one; None is the beginning.
        end_key: the other.
    """
    logic: ModelLogic = source.logic
    order = _get_order(source)
    start = None if start_key is None else decode_key(order, start_key, logic.using)
    table = logic.model._base_manager.using(logic.using).order_by()
    # Each for itself, as seeks are: with OR some databases read the whole table.
    return any(
        table.filter(since, before).exists()
        for since in _since(order, start)
        for before in _before(order, decode_key(order, end_key, logic.using))
    )


def _get_order(source: Source) -> Order:
    return Order.parse(source.logic.model, source.order or source.logic.order_field)


def _get_rows(source: Source) -> tuple[Any, Order]:
    rows = source.logic.in_order(source.filter, order=source.order).order_by().prefetch_related(None)
    rows.query.select_for_update = False
    return rows, _get_order(source)


def _plan(logic: ModelLogic, order: Order, start_key: str | None, end_key: str | None) -> Any:
    start, end = (None if key is None else decode_key(order, key, logic.using) for key in (start_key, end_key))
    return plan_seeks(order, start, end)


def _since(order: Order, start: Position | None) -> list[Q]:
    """Return conditions of which each row from a position on meets one."""
    if start is None:
        return [Q()]
    nulls = [Q((f"{order.name}__isnull", True))] if order.nullable else []
    if start.value is None:
        return [nulls[0] if start.pk is None else nulls[0] & order.since("pk", start.pk)]
    if start.pk is None:
        return [order.since(order.name, start.value), *nulls]
    return [order.after(order.name, start.value), order.equal(start.value) & order.since("pk", start.pk), *nulls]


def _before(order: Order, end: Position) -> list[Q]:
    """Return conditions of which each row before a position meets one."""
    if end.value is None:
        values, nulls = Q((f"{order.name}__isnull", False)), Q((f"{order.name}__isnull", True))
        return [values] if end.pk is None else [values, nulls & order.before("pk", end.pk)]
    if end.pk is None:
        return [order.before(order.name, end.value)]
    return [order.before(order.name, end.value), order.equal(end.value) & order.before("pk", end.pk)]
