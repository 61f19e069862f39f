"""What restricts a kind: filters as conditions that Datastore's client takes, those that are posted checked first."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from soc_tasks.logic.datastore_keys import KEY, check_value, rank_value

#: `(property, operator, value)`, as in the client's queries.
Condition = tuple[str, str, Any]

#: What a filter may write behind a property's name, and the operator that it means.
LOOKUPS: Final[Mapping[str, str]] = {
    "exact": "=",
    "in": "IN",
    "not_in": "NOT_IN",
    "ne": "!=",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
}
OPERATORS: Final = frozenset(LOOKUPS.values())
#: Operators that name a value, or several; all others name a side.
EQUAL: Final = frozenset({"=", "IN"})
#: The most values of IN and NOT_IN, and the most conditions of a posted filter.
MAX_IN_VALUES: Final = {"IN": 30, "NOT_IN": 10}
MAX_POSTED: Final = 100

#: A property's name in a posted filter; a dot leads into an embedded entity.
_PLAIN_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def read_filter(given: Any) -> list[Condition]:
    """Return a filter as conditions.

    Args:
        given: None, a dict of `property` or `property__lookup` to a value, or conditions as the client has them.

    Raises:
        TypeError: it is neither, or Datastore has no such values.
        ValueError: an operator is unknown, or a value out of bounds.
    """
    if not given:
        return []
    if isinstance(given, Mapping):
        return [_check(*_split(name), value) for name, value in given.items()]
    if not isinstance(given, (list, tuple)) or not all(
        isinstance(one, (list, tuple)) and len(one) == 3 for one in given
    ):
        raise TypeError(
            "filter must be a dict of properties to values, or a list of (property, operator, value), "
            f"not {reprlib.repr(given)}."
        )
    return [_check(*one) for one in given]


def _split(name: Any) -> tuple[Any, str]:
    """Return a name as property and operator: what no lookup ends is a property as a whole."""
    if isinstance(name, str):
        first, _, last = name.rpartition("__")
        if first and last in LOOKUPS:
            return first, LOOKUPS[last]
    return name, "="


def _check(name: Any, operator: Any, value: Any) -> Condition:
    if not isinstance(name, str) or not name:
        raise TypeError(f"A filter names properties by text, not {reprlib.repr(name)}.")
    if operator not in OPERATORS:
        raise ValueError(f"{reprlib.repr(operator)} is no operator; Datastore has {', '.join(sorted(OPERATORS))}.")
    most = MAX_IN_VALUES.get(operator)
    try:
        if most is None:
            return name, operator, check_value(value)
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise TypeError(f"{operator} takes a list, not {reprlib.repr(value)}.")
        if not 1 <= len(value) <= most:
            raise ValueError(f"{operator} takes 1 to {most} values, not {len(value)}.")
        return name, operator, [check_value(one) for one in value]
    except TypeError as error:
        raise TypeError(f"The filter on {name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"The filter on {name}: {error}") from error


def check_posted_filter(kind: str, given: Any) -> dict[str, Any]:
    """Return an untrusted filter as one for `read_filter`.

    Args:
        kind: what is filtered, for messages.
        given: what was posted.

    Raises:
        ValueError: it names anything but plain properties and the known lookups, or a value cannot be compared.
    """
    rules = (
        f"Allowed are plain names of properties of {kind}, alone or with one of __{', __'.join(LOOKUPS)} behind them."
    )
    if not isinstance(given, Mapping):
        raise ValueError(f"A posted filter must be an object of properties, not {type(given).__name__}. {rules}")
    if len(given) > MAX_POSTED:
        raise ValueError(f"A posted filter holds at most {MAX_POSTED} conditions, not {len(given)}.")
    checked: dict[str, Any] = {}
    for key, value in given.items():
        name, _ = _split(key)
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or "__" in name or len(name) > 500:
            raise ValueError(f"{reprlib.repr(key)} is not allowed in a posted filter. {rules}")
        try:
            read_filter({key: value})
        except TypeError as error:
            raise ValueError(str(error)) from error
        checked[key] = value
    return checked


def join(*filters: Any) -> list[Condition]:
    """Return the conditions of several filters."""
    return [condition for given in filters for condition in read_filter(given)]


def holds(conditions: Iterable[Condition], value: Any) -> bool:
    """Tell whether a value meets conditions on it, as Datastore compares."""
    rank = rank_value(value)
    return all(_compare(rank, operator, operand) for _, operator, operand in conditions)


def _compare(rank: tuple[Any, ...], operator: str, operand: Any) -> bool:
    if operator in MAX_IN_VALUES:
        return (rank in [rank_value(one) for one in operand]) == (operator == "IN")
    other = rank_value(operand)
    match operator:
        case "=":
            return rank == other
        case "!=":
            return rank != other
        case ">":
            return rank > other
        case ">=":
            return rank >= other
        case "<":
            return rank < other
    return rank <= other


def describe_index(
    kind: str, conditions: Iterable[Condition], order: str, projection: Iterable[str], has_ancestor: bool
) -> str | None:
    """Return the composite index that a query needs, as index.yaml has it, or None where it needs none.

    Args:
        kind: what is read.
        conditions: what restricts it.
        order: the property that orders it, "-" before it where that falls, or `KEY`.
        projection: what is read of each entity; empty for all.
        has_ancestor: whether it is restricted to what is under an entity.
    """
    name = order.removeprefix("-")
    conditions = list(conditions)
    equal = sorted({prop for prop, operator, _ in conditions if operator in EQUAL and prop not in (name, KEY)})
    others = [prop for prop, operator, _ in conditions if operator not in EQUAL]
    more = [prop for prop in dict.fromkeys([*others, *projection]) if prop not in (name, KEY, *equal)]
    if name == KEY:
        if not more:
            # Equal values and an ascending key: what Datastore's own indexes give, merged.
            return None
        properties = [(prop, False) for prop in [*equal, KEY, *more]]
    elif not equal and not more and not has_ancestor:
        return None
    else:
        properties = [
            *((prop, False) for prop in equal),
            (name, order.startswith("-")),
            *((prop, False) for prop in more),
        ]
    lines = ["indexes:", f"- kind: {_quote(kind)}"]
    if has_ancestor:
        lines.append("  ancestor: yes")
    lines.append("  properties:")
    for prop, falls in properties:
        lines.append(f"  - name: {_quote(prop)}")
        if falls:
            lines.append("    direction: desc")
    return "\n".join(lines)


def _quote(name: str) -> str:
    return (
        name
        if re.fullmatch(r"[A-Za-z_][\w.]*", name, re.ASCII)
        else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
