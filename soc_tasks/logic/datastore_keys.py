"""Places in a kind as text, and the order in which Datastore has values.

A key is compact JSON: `["Student",["Student",17]]` in the order of Datastore's keys, and in that of a property
`["Student","age",20,["Student",17]]`, where the key breaks ties; without its last part, it is where the value begins.
It names its kind and order, so that it cannot be taken for another's. Values that JSON has no words for are objects of
one field.
"""

from __future__ import annotations

import base64
import math
import reprlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import simplejson

#: What orders call Datastore's own key.
KEY: Final = "__key__"
#: There is no value, where None is one.
NOTHING: Final = object()
#: A key's path: kind, id or name, and so on.
Path = tuple[str | int, ...]

_INTEGERS: Final = range(-(2**63), 2**63)
#: Above these, Datastore's emulator sorts text by UTF-16, and Firestore by UTF-8.
_LAST_PLAIN: Final = "\ud7ff"


@dataclass(frozen=True, slots=True)
class Position:
    """A place: a value and, among ties, a path; without it, where the value begins. By key, a path alone."""

    value: Any = None
    path: Path | None = None


def encode_position(kind: str, name: str, position: Position) -> str:
    """Return the text of a position.

    Args:
        kind: the kind that is read.
        name: the property that orders it, or `KEY`.
        position: the place.

    Raises:
        ValueError: the value is of a type that has no place in an index.
    """
    parts: list[Any] = [kind] if name == KEY else [kind, name, encode_value(position.value)]
    if position.path is not None:
        parts.append(list(position.path))
    return simplejson.dumps(parts, separators=(",", ":"))


def decode_position(kind: str, name: str, text: Any) -> Position:
    """Return the position that a text stands for.

    Raises:
        ValueError: it is no key of this kind and order.
    """
    try:
        if not isinstance(text, str):
            raise ValueError(f"a key is a str, not {type(text).__name__}")
        parts = simplejson.loads(text)
        head = [kind] if name == KEY else [kind, name]
        if not isinstance(parts, list) or parts[: len(head)] != head:
            raise ValueError("it does not belong to this kind and order")
        rest = parts[len(head) :]
        if name == KEY and len(rest) == 1:
            position = Position(path=_read_path(rest[0]))
        elif name != KEY and len(rest) in (1, 2):
            position = Position(decode_value(rest[0]), _read_path(rest[1]) if len(rest) == 2 else None)
        else:
            raise ValueError("it does not belong to this kind and order")
        if encode_position(kind, name, position) != text:
            raise ValueError("keys are not written like that")
        return position
    except (ValueError, RecursionError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"{reprlib.repr(text)} is no key of {kind} in the order of {name}: {reason}.") from error


def _read_path(raw: Any) -> Path:
    if not isinstance(raw, list) or not raw or len(raw) % 2 or len(raw) > 200:
        raise ValueError("it holds no path of kinds and ids")
    for kind, part in zip(raw[::2], raw[1::2], strict=True):
        if not _is_name(kind) or not (_is_name(part) or _is_id(part)):
            raise ValueError("its path holds something else than kinds, ids and names")
    return tuple(raw)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and len(value.encode()) <= 1500


def _is_id(value: Any) -> bool:
    return type(value) is int and value in _INTEGERS and value != 0


def get_property(entity: Any, name: str) -> Any:
    """Return a property's value, also that of an embedded entity ("address.city"), or NOTHING."""
    if name in entity:
        return entity[name]
    first, dot, rest = name.partition(".")
    inner = entity.get(first) if dot else None
    return get_property(inner, rest) if isinstance(inner, dict) else NOTHING


def check_value(value: Any) -> Any:
    """Return a value that Datastore can compare, as its client takes it; an entity stands for its key.

    Raises:
        TypeError: Datastore has no such values, or cannot compare them.
        ValueError: the value is out of Datastore's bounds.
    """
    from google.cloud.datastore import Entity, Key
    from google.cloud.datastore.helpers import GeoPoint

    if isinstance(value, Entity) and value.key is not None:
        value = value.key
    if isinstance(value, Key) and value.is_partial:
        raise ValueError(f"{value!r} is incomplete: it has neither id nor name.")
    if type(value) is int and value not in _INTEGERS:
        raise ValueError(f"{reprlib.repr(value)} is no integer of 64 bits.")
    if isinstance(value, str):
        value.encode()  # half a surrogate pair is no text
    if value is None or isinstance(value, (bool, int, float, str, bytes, datetime, Key, GeoPoint)):
        return value
    if type(value).__name__ == "date" and type(value).__module__ == "datetime":
        # Datastore has no dates; those who keep some keep midnight, UTC.
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise TypeError(f"Datastore cannot compare by {type(value).__name__}: {reprlib.repr(value)}.")


def encode_value(value: Any) -> Any:
    """Return a value of an index as JSON that stands for exactly this value.

    Raises:
        ValueError: no index holds such values.
    """
    from google.cloud.datastore import Key
    from google.cloud.datastore.helpers import GeoPoint

    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": repr(value)}
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case datetime():
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            # By its parts: the client's own class would write nanoseconds.
            return {"time": datetime.combine(moment.date(), moment.timetz()).astimezone(UTC).isoformat()}
        case Key():
            return {"key": [value.project, value.database, value.namespace, list(value.flat_path)]}
        case GeoPoint():
            return {"point": [repr(float(value.latitude)), repr(float(value.longitude))]}
    raise ValueError(f"{type(value).__name__} is no value to order by")


def decode_value(raw: Any) -> Any:
    """Return the value that `encode_value` was given.

    Raises:
        ValueError: it is none of its texts.
    """
    from google.cloud.datastore import Key
    from google.cloud.datastore.helpers import GeoPoint

    try:
        match raw:
            case {"float": str(text)}:
                return float(text)
            case {"bytes": str(text)}:
                return base64.b64decode(text, validate=True)
            case {"time": str(text)}:
                return datetime.fromisoformat(text)
            case {"key": [str(project), database, namespace, path]}:
                if not all(part is None or isinstance(part, str) for part in (database, namespace)):
                    raise ValueError("its key names no database or namespace")
                return Key(*_read_path(path), project=project, database=database, namespace=namespace)
            case {"point": [str(latitude), str(longitude)]}:
                return GeoPoint(float(latitude), float(longitude))
            case None | bool() | int() | str():
                return check_value(raw)
    except TypeError as error:
        raise ValueError(str(error)) from error
    raise ValueError("it holds no value")


def rank_path(path: Path) -> tuple[Any, ...]:
    """Return what sorts paths as Datastore does: kind by kind, ids before names, a parent before what is under it."""
    return tuple(
        (kind.encode(), isinstance(part, str), part.encode() if isinstance(part, str) else part)
        for kind, part in zip(path[::2], path[1::2], strict=True)
        if isinstance(kind, str)
    )


def rank_value(value: Any) -> tuple[Any, ...]:
    """Return what sorts values as Datastore does: type by type, and text by its bytes.

    Raises:
        ValueError: no index holds such values.
    """
    from google.cloud.datastore import Key
    from google.cloud.datastore.helpers import GeoPoint

    match value:
        case None:
            return (0,)
        case bool():
            return 3, value
        case int():
            return 1, value
        case datetime():
            return 2, value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        case str():
            return 4, value.encode()
        case bytes():
            return 4, value
        case float():
            # -0.0 comes before 0.0.
            return (5, 1) if math.isnan(value) else (5, 0, value, math.copysign(1.0, value))
        case GeoPoint():
            return 6, float(value.latitude), float(value.longitude)
        case Key():
            return 7, value.project, value.database or "", value.namespace or "", rank_path(value.flat_path)
    raise ValueError(f"{type(value).__name__} is no value to order by")


def is_plain(value: Any) -> bool:
    """Tell whether a value is fit to divide a kind by: one that all editions of Datastore sort alike."""
    from google.cloud.datastore import Key

    if isinstance(value, Key):
        return all(is_plain(part) for part in value.flat_path)
    if isinstance(value, str):
        return all(letter <= _LAST_PLAIN for letter in value)
    return not (isinstance(value, float) and math.isnan(value))
