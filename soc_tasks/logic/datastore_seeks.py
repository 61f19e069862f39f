"""How Datastore gets to where a batch begins: at most three queries, each answered by one index in order.

By key: `__key__ >= start`. By a property: the rest of the ties at the start (`f = v AND __key__ >= k`, by key), the
values behind it (`f > v`), the ties before the end. Among ties keys ascend in both directions: a falling order of keys
would need an index of its own. A query may hold no second inequality, so conditions on `f` are judged here for ties.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soc_tasks.logic.datastore_filters import Condition, holds
from soc_tasks.logic.datastore_keys import KEY, Path, Position, rank_path, rank_value

#: Makes a key of a path.
MakeKey = Callable[[Path], Any]


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a property, with the key behind it, or of the key."""

    name: str
    descending: bool = False

    @classmethod
    def parse(cls, text: Any) -> Order:
        """Return the order that `text` ("property", "-property" or "__key__") names.

        Raises:
            ValueError: Datastore has no such order, or only by an index that nothing else needs.
        """
        name = text.removeprefix("-") if isinstance(text, str) else ""
        if text == f"-{KEY}":
            raise ValueError(
                "-__key__ would need a composite index in Datastore; keys are read in their ascending order."
            )
        if not name or name[:1] == "-" or len(name.encode()) > 1500 or (name[:2] == name[-2:] == "__" and name != KEY):
            raise ValueError(
                f'{text!r:.100} is no order: it takes the name of one property, "-" before it for descending, or {KEY}.'
            )
        return cls(name, text.startswith("-"))

    def __str__(self) -> str:
        """Return the order as `parse` takes it."""
        return f"-{self.name}" if self.descending else self.name

    @property
    def by_key(self) -> bool:
        """Tell whether it is that of the key."""
        return self.name == KEY

    def comes_first(self, one: Any, other: Any) -> bool:
        """Tell whether a value comes before another one."""
        if self.descending:
            one, other = other, one
        return rank_value(one) < rank_value(other)


@dataclass(frozen=True, slots=True)
class Seek:
    """One query of a batch: further conditions, an order, and, among ties, the value that all have."""

    conditions: tuple[Condition, ...]
    order: tuple[str, ...]
    ties: Position | None = None


#: The order of ties, and of all by key.
_BY_KEY: Final = (KEY,)


def plan_seeks(
    order: Order,
    conditions: Sequence[Condition],
    start: Position | None,
    end: Position | None,
    make_key: MakeKey,
) -> list[Seek]:
    """Return the queries whose entities one after the other are those from `start` up to `end`.

    Args:
        order: the order.
        conditions: what restricts the kind.
        start: the first position that counts; None from the beginning.
        end: the first position that no longer counts; None to the end.
        make_key: makes a key of a path.
    """
    if order.by_key:
        since, until = (None if one is None else one.path for one in (start, end))
        return [Seek((*conditions, *_between(since, until, make_key)), _BY_KEY)]
    own = [one for one in conditions if one[0] == order.name]
    others = [one for one in conditions if one[0] != order.name]

    def ties(value: Any, since: Path | None, until: Path | None) -> list[Seek]:
        if not holds(own, value) or (since and until and rank_path(since) >= rank_path(until)):
            return []
        return [Seek((*others, (order.name, "=", value), *_between(since, until, make_key)), _BY_KEY, Position(value))]

    fixed = [value for _, operator, value in own if operator == "="]
    if fixed:
        return _plan_fixed(order, fixed[0], start, end, ties)
    seeks: list[Seek] = []
    one_value = start is not None and end is not None and rank_value(start.value) == rank_value(end.value)
    if start is not None and end is not None and order.comes_first(end.value, start.value):
        return []
    if start is not None and (start.path is not None or one_value):
        until = end.path if end is not None and one_value else None
        if one_value and until is None:
            return []
        seeks += ties(start.value, start.path, until)
    if not one_value:
        seeks.append(Seek((*conditions, *_range(order, start, end)), (str(order), KEY)))
        if end is not None and end.path is not None:
            seeks += ties(end.value, None, end.path)
    return seeks


def _plan_fixed(
    order: Order, value: Any, start: Position | None, end: Position | None, ties: Callable[..., list[Seek]]
) -> list[Seek]:
    """Return the one query where a condition names the value."""
    since = until = None
    if start is not None:
        if order.comes_first(value, start.value):
            return []
        since = start.path if rank_value(start.value) == rank_value(value) else None
    if end is not None:
        is_end = rank_value(end.value) == rank_value(value)
        if order.comes_first(end.value, value) or (is_end and end.path is None):
            return []
        until = end.path if is_end else None
    return ties(value, since, until)


def _between(since: Path | None, until: Path | None, make_key: MakeKey) -> list[Condition]:
    found: list[Condition] = []
    if since is not None:
        found.append((KEY, ">=", make_key(since)))
    if until is not None:
        found.append((KEY, "<", make_key(until)))
    return found


def _range(order: Order, start: Position | None, end: Position | None) -> list[Condition]:
    """Return the conditions for the values behind the start's (from it on where it names no entity) up to the end's."""
    found: list[Condition] = []
    if start is not None:
        step = "<" if order.descending else ">"
        found.append((order.name, step if start.path is not None else f"{step}=", start.value))
    if end is not None:
        found.append((order.name, ">" if order.descending else "<", end.value))
    return found
