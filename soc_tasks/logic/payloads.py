"""Typed JSON: what JSON has, and a tagged form for what it lacks. No pickle, no code, no names to import.

A tagged value is `{"__soc__": tag, "v": …}`; a dict of the user's that looks like one is escaped by the tag "dict".
Decoding is strict: duplicate keys, NaN, infinities, overlong numbers and deep nesting are refused.

A project's own types travel by codecs (`register_codec`); what only the arguments of deferred functions may hold, such
as functions and model instances, is an `Extension` (arguments.py).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Container
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol
from uuid import UUID

import simplejson
from django.utils.functional import LazyObject

from soc_tasks.errors import PayloadError
from soc_tasks.logic.datastore_values import find_tag
from soc_tasks.logic.strict_json import check_text, read

#: Lists and dicts inside each other; a 100,000 deep text would end in RecursionError, not in an error to handle.
MAX_DEPTH: Final = 32
#: Python refuses to parse more than 4,300 digits (sys.set_int_max_str_digits); 14,000 bits stay below.
_MAX_INT_BITS: Final = 14_000
#: Integers up to here are sent without a closer look.
_FAR: Final = 2**63
_TAG: Final = "__soc__"

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


def _pack_number(value: int | float, path: str) -> int | float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise PayloadError(f"{path} is {value!r}, which JSON cannot carry; use None or a string.")
        return float(value)
    if value.bit_length() > _MAX_INT_BITS:
        raise PayloadError(f"{path} is an integer of over 4,000 digits; send it as a string.")
    return int(value)


class Extension(Protocol):
    """More types, for some payloads only."""

    @property
    def tags(self) -> Container[str]:
        """Return the tags of these types."""

    def pack(self, value: Any, path: str, pack: Callable[[Any, str], Any]) -> tuple[str, Any] | None:
        """Return the tag and the plain form of a value, or None where it is none of these types.

        Raises:
            PayloadError: it is, and cannot travel.
        """

    def unpack(self, tag: str, inner: Any, unpack: Callable[[Any], Any]) -> Any:
        """Return the value of one of its tags.

        Raises:
            UnknownNameError: it names what is not here.
            ValueError: what is tagged is none.
        """


class UnknownNameError(PayloadError):
    """A payload names what this release does not know: a function, a class, a model, a codec. Another one may."""


_codecs: dict[type, tuple[str, Callable[[Any], Any]]] = {}
_codec_decoders: dict[str, Callable[[Any], Any]] = {}
#: What the names of codecs begin with, so that no later tag of ours can be one.
_CODEC: Final = "codec:"


def register_codec(kind: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> None:
    """Let values of a type travel in contexts, and in the arguments of deferred functions.

    Register it wherever the type is used: in `AppConfig.ready`, say. Instances of subclasses travel as well, and come
    back as whatever `decode` returns.

    Args:
        kind: the type.
        encode: called with a value; returns something that can travel, as a list or a dict of what makes the value up.
        decode: called with what `encode` returned; returns an equal value.

    Raises:
        TypeError: an argument is of the wrong kind, or the type travels as it is.
    """
    if not isinstance(kind, type) or not callable(encode) or not callable(decode):
        raise TypeError("register_codec takes a type and two functions.")
    if issubclass(kind, (str, int, float, list, dict, tuple, set, frozenset, *_ENCODERS)):
        raise TypeError(
            f"{kind.__qualname__} travels as it is, or as the type that it is derived from; it needs no codec."
        )
    tag = f"{_CODEC}{kind.__module__}.{kind.__qualname__}"
    _codecs[kind] = (tag, encode)
    _codec_decoders[tag] = decode


def _find_codec(value: Any) -> tuple[str, Callable[[Any], Any]] | None:
    if not _codecs:
        return None
    return next((_codecs[kind] for kind in type(value).__mro__ if kind in _codecs), None)


def _pack_dict(value: dict[Any, Any], path: str, depth: int, more: Extension | None) -> dict[str, Any]:
    packed = {}
    for key, item in value.items():
        if not isinstance(key, str) or (more is not None and type(key) is not str):
            if more is None:
                raise PayloadError(f"{path} has the key {key!r}; keys must be str, as in JSON.")
            return _pack_map(value, path, depth, more)
        if not _is_plain(key):
            check_text(key, f"a key of {path}")
        packed[str.__str__(key)] = item if _is_plain(item) else _pack(item, f"{path}[{key!r}]", depth + 1, more)
    return {_TAG: "dict", "v": packed} if _TAG in packed else packed


def _pack_map(value: dict[Any, Any], path: str, depth: int, more: Extension) -> dict[str, Any]:
    """Pack a dict whose keys are of any type."""
    items = [
        [_pack(key, f"a key of {path}", depth + 1, more), _pack(item, f"{path}[{key!r}]", depth + 1, more)]
        for key, item in value.items()
    ]
    return {_TAG: "map", "v": items}


def _is_plain(value: Any) -> bool:
    """Tell at a glance whether a value is packed as it is: most items are, and to name each takes most of the time."""
    kind = type(value)
    if kind is str:
        return value.isascii() and "\x00" not in value
    return value is None or kind is bool or (kind is int and -_FAR < value < _FAR)


def _pack(value: Any, path: str, depth: int, more: Extension | None) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return check_text(value, path)
    if kind is int or kind is float:
        return _pack_number(value, path)
    if depth >= MAX_DEPTH and kind not in _ENCODERS and (more is not None or not isinstance(value, (str, int, float))):
        raise PayloadError(f"{path} is nested deeper than {MAX_DEPTH} levels.")
    if kind is list:
        if set(map(type, value)) == {int} and min(value) > -_FAR and max(value) < _FAR:
            # Primary keys, a thousand at a time.
            return value
        return [
            item if _is_plain(item) else _pack(item, f"{path}[{i}]", depth + 1, more) for i, item in enumerate(value)
        ]
    if kind is dict:
        return _pack_dict(value, path, depth, more)
    if kind in _ENCODERS:
        tag, encode = _ENCODERS[kind]
        return {_TAG: tag, "v": encode(value, path)}
    return _pack_rare(value, path, depth, more)


def _pack_rare(value: Any, path: str, depth: int, more: Extension | None) -> Any:
    """Pack a value that is of none of the exact types of JSON, or derived from one."""
    kind = type(value)
    if isinstance(value, LazyObject):
        # `request.user`, say: its class is looked up in what it stands for, which is made by that.
        value.__class__  # noqa: B018
        return _pack(value._wrapped, path, depth, more)
    if (codec := _find_codec(value)) is not None:
        return {_TAG: codec[0], "v": _pack(codec[1](value), path, depth + 1, more)}
    if more is not None:
        tagged = more.pack(value, path, lambda inner, place: _pack(inner, place, depth + 1, more))
        if tagged is not None:
            return {_TAG: tagged[0], "v": tagged[1]}
    if isinstance(value, str):
        return check_text(value, path)
    if isinstance(value, (int, float)):
        return _pack_number(value, path)
    if (encoder := _find_encoder(value)) is not None:
        return {_TAG: encoder[0], "v": encoder[1](value, path)}
    if isinstance(value, dict):
        if more is None and find_tag(value) is not None:
            raise PayloadError(f"{path} is an entity, of which only the arguments of deferred functions keep the key.")
        return _pack_dict(value, path, depth, more)
    if kind in _COLLECTIONS:
        items = [_pack(item, f"{path}[{i}]", depth + 1, more) for i, item in enumerate(value)]
        return {_TAG: _COLLECTIONS[kind], "v": items}
    raise PayloadError(
        f"{path} is of type {kind.__module__}.{kind.__qualname__}, which cannot travel as JSON. "
        "Pass its primary key or plain values, and load it in the task; or give the type a codec (register_codec)."
    )


#: What JSON nests.
_NESTED: Final = frozenset({list, dict})


def _unpack(value: Any, depth: int, more: Extension | None) -> Any:
    if not isinstance(value, (list, dict)):
        return value
    if isinstance(value, dict) and _TAG in value:
        return _unpack_tagged(value, depth, more)
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        if _NESTED.isdisjoint(map(type, value)):
            return value
        return [_unpack(item, depth + 1, more) if type(item) in _NESTED else item for item in value]
    return {key: _unpack(item, depth + 1, more) if type(item) in _NESTED else item for key, item in value.items()}


def _unpack_tagged(value: dict[str, Any], depth: int, more: Extension | None) -> Any:
    if len(value) != 2 or "v" not in value:  # the tag and its value
        raise ValueError("a tagged value has other parts than its tag and its value")
    tag, inner = value[_TAG], value["v"]
    if not isinstance(tag, str):
        raise ValueError("a tag is no text")
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
        return {key: _unpack(item, depth + 1, more) for key, item in inner.items()}
    if tag in _COLLECTION_TYPES and isinstance(inner, list):
        return _COLLECTION_TYPES[tag](_unpack(item, depth + 1, more) for item in inner)
    if tag.startswith(_CODEC):
        return _decode_own(tag, _unpack(inner, depth + 1, more))
    if more is not None:
        if tag == "map" and isinstance(inner, list):
            return _unpack_map(inner, depth, more)
        if tag in more.tags:
            return more.unpack(tag, inner, lambda part: _unpack(part, depth + 1, more))
    raise ValueError(f"unknown tag {tag!r:.40}")


def _unpack_map(items: list[Any], depth: int, more: Extension) -> dict[Any, Any]:
    result = {}
    for item in items:
        if not isinstance(item, list) or len(item) != 2:  # key and value
            raise ValueError("what is tagged 'map' is none")
        result[_unpack(item[0], depth + 1, more)] = _unpack(item[1], depth + 1, more)
    return result


def _decode_own(tag: str, inner: Any) -> Any:
    decode = _codec_decoders.get(tag)
    if decode is None:
        name = tag.removeprefix(_CODEC)
        raise UnknownNameError(f"No codec is registered for {name:.200}; do that in AppConfig.ready.")
    try:
        return decode(inner)
    except Exception as error:
        raise PayloadError(f"The codec of {tag.removeprefix(_CODEC)} cannot read what it wrote: {error!r}") from error


def dumps(value: Any, path: str = "value", more: Extension | None = None, *, within: int = 0) -> str:
    """Return `value` as typed JSON text in ASCII.

    Args:
        value: None, bool, int, float, str, list, dict with str keys, what the tags cover (Decimal, date and time types,
            UUID, bytes, tuple, set, frozenset), and what has a codec.
        path: how errors name the value.
        more: further types, and dicts with keys of any type.
        within: how many of its outermost levels are not the user's, and not counted.

    Raises:
        PayloadError: something in it cannot travel; the message names the place, as in `context["report"][3]`.
    """
    return encode(pack(value, path, more, within=within))


def pack(value: Any, path: str = "value", more: Extension | None = None, *, within: int = 0) -> Any:
    """Return the plain form of a value, as for `dumps`, for `encode`."""
    return _pack(value, path, -within, more)


def encode(packed: Any) -> str:
    """Return the text of what was packed."""
    text: str = _encoder.encode(packed)
    return text


def loads(text: str, more: Extension | None = None, *, within: int = 0) -> Any:
    """Read typed JSON text; what `dumps` was given comes back equal.

    Args:
        text: the text.
        more: as for `dumps`.
        within: as for `dumps`.

    Raises:
        PayloadError: the text is no typed JSON of ours.
    """
    try:
        # Each level of the user's may take several of JSON.
        return _unpack(read(text, (2 if more is None else 5) * MAX_DEPTH + 2), -within, more)
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as error:
        if isinstance(error, PayloadError):
            raise
        raise PayloadError(f"This is no typed JSON: {error}") from error
