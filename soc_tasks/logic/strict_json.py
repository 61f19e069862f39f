"""JSON read strictly: no duplicate keys, NaN, infinities, overlong numbers, deep nesting, NUL or lone surrogates."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import simplejson

from soc_tasks.errors import PayloadError

#: simplejson would skip them: of UTF-16 or UTF-8, and the latter read as latin-1.
_BYTE_ORDER_MARKS: Final = ("\ufeff", "\xef\xbb\xbf")


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


#: NUL, and what begins the escape of a surrogate.
_BAD_ESCAPES: Final = ("\\u0000", "\\ud", "\\uD")

# Made once: simplejson.loads() makes a decoder for every call with options.
_decoder: Final = simplejson.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_parse_float
)

# A string that never ends reaches to the end: looking for its end again at each quote in it would take forever.
_BRACKETS = re.compile(r'"(?:[^"\\]+|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


def _check_depth(text: str, limit: int) -> None:
    if text.count("[") + text.count("{") <= limit:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        first = match.group()[0]
        if first in "[{":
            depth += 1
            if depth > limit:
                raise ValueError(f"nested deeper than {limit} levels")
        elif first in "]}":
            depth -= 1


def read(text: str, levels: int) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the text.
        levels: how many lists and objects may stand inside each other.

    Raises:
        ValueError, RecursionError, PayloadError: it is no JSON, or none that is taken here.
    """
    if text.startswith(_BYTE_ORDER_MARKS):
        raise ValueError("it begins with a byte order mark")
    _check_depth(text, levels)
    plain = _decoder.decode(text)
    # In ASCII only an escape can say what is refused, and raw control characters were refused by the parser.
    if not text.isascii() or ("\\" in text and any(escape in text for escape in _BAD_ESCAPES)):
        _refuse_bad_text(plain)
    return plain


def _refuse_bad_text(value: Any) -> None:
    if isinstance(value, str):
        check_text(value, "a text")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, "a key")
            _refuse_bad_text(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_bad_text(item)
