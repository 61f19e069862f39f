"""Typed JSON: what JSON has, and a tagged form for what it lacks. No pickle, no code, no names to import.

A tagged value is `{"__soc__": tag, "v": …}`; a dict of the user's that looks like one is escaped by the tag "dict".
Decoding is strict: duplicate keys, NaN, infinities, overlong numbers and deep nesting are refused.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import simplejson

from soc_tasks.errors import PayloadError

#: Lists and dicts inside each other; a 100,000 deep text would end in RecursionError, not in an error to handle.
MAX_DEPTH: Final = 32
#: Python refuses to parse more than 4,300 digits (sys.set_int_max_str_digits); 14,000 bits stay below.
_MAX_INT_BITS: Final = 14_000
_TAG: Final = "__soc__"
#: simplejson would skip them: of UTF-16 or UTF-8, and the latter read as latin-1.
_BYTE_ORDER_MARKS: Final = ("\ufeff", "\xef\xbb\xbf")


# Made once: simplejson.dumps() makes an encoder for every call with options.
_encoder: Final = simplejson.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _encode_decimal(value: Decimal, path: str) -> str:
    if not value.is_finite():
        raise PayloadError(f"{path} is {value!r}, which is no number; use None or a string.")
    return str(value)


def _decode_timedelta(value: list[Any]) -> timedelta:
    if not all(type(part) is int for part in value):
        raise ValueError("a part is no whole number")
    days, seconds, microseconds = value
    return timedelta(days, seconds, microseconds)


_ENCODERS: dict[type, tuple[str, Callable[[Any, str], Any]]] = {
    Decimal: ("decimal", _encode_decimal),
    # Before date, whose subclass it is.
    datetime: ("datetime", lambda value, _: value.isoformat()),
    date: ("date", lambda value, _: value.isoformat()),
    time: ("time", lambda value, _: value.isoformat()),
    timedelta: ("timedelta", lambda value, _: [value.days, value.seconds, value.microseconds]),
    UUID: ("uuid", lambda value, _: str(value)),
    bytes: ("bytes", lambda value, _: base64.b64encode(value).decode("ascii")),
}
_DECODERS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "decimal": (str, Decimal),
    "datetime": (str, datetime.fromisoformat),
    "date": (str, date.fromisoformat),
    "time": (str, time.fromisoformat),
    "timedelta": (list, _decode_timedelta),
    "uuid": (str, UUID),
    "bytes": (str, lambda value: base64.b64decode(value, validate=True)),
}
_COLLECTIONS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_COLLECTION_TYPES: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def _find_encoder(value: Any) -> tuple[str, Callable[[Any, str], Any]] | None:
    """Return the encoder of the type that a value's own type is derived from (freezegun's datetime, for one)."""
    return next((encoder for kind, encoder in _ENCODERS.items() if isinstance(value, kind)), None)


def check_text(value: str, path: str) -> str:
    """Return `value` as a plain str, or refuse what no database or HTTP body carries: NUL and lone surrogates."""
    if "\x00" in value:
        raise PayloadError(f"{path} holds a NUL character, which not every database can store; remove it.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise PayloadError(f"{path} holds a lone surrogate, which is no valid Unicode text.") from None
    # Not str(): an Enum with str as its base gives its name there.
    return str.__str__(value)


def _pack_number(value: int | float, path: str) -> int | float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PayloadError(f"{path} is {value!r}, which JSON cannot carry; use None or a string.")
        return float(value)
    if value.bit_length() > _MAX_INT_BITS:
        raise PayloadError(f"{path} is an integer of over 4,000 digits; send it as a string.")
    return int(value)


def _pack_dict(value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
    packed = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise PayloadError(f"{path} has the key {key!r}; keys must be str, as in JSON.")
        packed[check_text(key, f"a key of {path}")] = _pack(item, f"{path}[{key!r}]", depth + 1)
    return {_TAG: "dict", "v": packed} if _TAG in packed else packed


def _pack(value: Any, path: str, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return check_text(value, path)
    if isinstance(value, (int, float)):
        return _pack_number(value, path)
    kind = type(value)
    encoder = _ENCODERS.get(kind) or _find_encoder(value)
    if encoder is not None:
        tag, encode = encoder
        return {_TAG: tag, "v": encode(value, path)}
    if depth >= MAX_DEPTH and isinstance(value, (list, dict, tuple, set, frozenset)):
        raise PayloadError(f"{path} is nested deeper than {MAX_DEPTH} levels.")
    if kind is list:
        return [_pack(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return _pack_dict(value, path, depth)
    if kind in _COLLECTIONS:
        items = [_pack(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
        return {_TAG: _COLLECTIONS[kind], "v": items}
    raise PayloadError(
        f"{path} is of type {kind.__module__}.{kind.__qualname__}, which cannot travel as JSON. "
        "Pass its primary key or plain values, and load it in the task."
    )


def _unpack(value: Any, depth: int = 0) -> Any:
    if not isinstance(value, (list, dict)):
        return value
    if isinstance(value, dict) and _TAG in value:
        return _unpack_tagged(value, depth)
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_unpack(item, depth + 1) for item in value]
    return {key: _unpack(item, depth + 1) for key, item in value.items()}


def _unpack_tagged(value: dict[str, Any], depth: int) -> Any:
    if len(value) != 2 or "v" not in value:  # the tag and its value
        raise ValueError("a tagged value has other parts than its tag and its value")
    tag, inner = value[_TAG], value["v"]
    if tag in _DECODERS:
        kind, decode = _DECODERS[tag]
        if isinstance(inner, kind):
            with suppress(ValueError, TypeError, ArithmeticError):
                return decode(inner)
        # What it says is the sender's, and errors are logged.
        raise ValueError(f"what is tagged {tag!r} is none")
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if tag == "dict" and isinstance(inner, dict):
        return {key: _unpack(item, depth + 1) for key, item in inner.items()}
    if tag in _COLLECTION_TYPES and isinstance(inner, list):
        return _COLLECTION_TYPES[tag](_unpack(item, depth + 1) for item in inner)
    raise ValueError(f"unknown tag {tag!r:.40}")


def dumps(value: Any, path: str = "value") -> str:
    """Return `value` as typed JSON text in ASCII.

    Args:
        value: None, bool, int, float, str, list, dict with str keys, and what the tags cover: Decimal, date and
            time types, UUID, bytes, tuple, set, frozenset.
        path: how errors name the value.

    Raises:
        PayloadError: something in it cannot travel; the message names the place, as in `context["report"][3]`.
    """
    return _encoder.encode(_pack(value, path, 0))


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is out of range")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return result


# A string that never ends reaches to the end: looking for its end again at each quote in it would take forever.
_BRACKETS = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def _check_depth(text: str) -> None:
    # Each level of the user's may be tagged, which takes two levels of JSON.
    limit = 2 * MAX_DEPTH + 2
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        first = match.group()[0]
        if first in "[{":
            depth += 1
            if depth > limit:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def loads(text: str) -> Any:
    """Read typed JSON text; what `dumps` was given comes back equal.

    Raises:
        PayloadError: the text is no typed JSON of ours.
    """
    try:
        if text.startswith(_BYTE_ORDER_MARKS):
            raise ValueError("it begins with a byte order mark")
        _check_depth(text)
        plain = simplejson.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
        )
        value = _unpack(plain)
        _refuse_bad_text(value)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"This is no typed JSON: {error}") from error
    return value


def _refuse_bad_text(value: Any) -> None:
    if isinstance(value, str):
        check_text(value, "a text")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, "a key")
            _refuse_bad_text(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            _refuse_bad_text(item)
