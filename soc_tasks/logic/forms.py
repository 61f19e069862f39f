"""A task's context as a form, and back: strings as they are, the rest as typed JSON.

`request.POST` of the view holds nothing but the context, in strings, as in Melange; which keys are not plain strings
travels in the meta header, so that `request.task.context` equals what was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, unquote_to_bytes

from django.conf import settings as django_settings
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict

from soc_tasks.errors import PayloadError, TaskTooLargeError
from soc_tasks.logic import payloads
from soc_tasks.logic.strict_json import check_text
from soc_tasks.values import CONTENT_TYPE


def encode_context(context: Mapping[str, Any] | None) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    """Return a context as the body of a form, with the keys that are typed JSON and those that are lists of str.

    Raises:
        PayloadError: something in it cannot travel.
        TaskTooLargeError: the site's upload settings would refuse to read it.
    """
    if not context:
        if context is None or isinstance(context, Mapping):
            return b"", (), ()
        raise PayloadError(f"context must be a dict, not {type(context).__name__}.")
    if not isinstance(context, Mapping):
        raise PayloadError(f"context must be a dict, not {type(context).__name__}.")
    pairs: list[tuple[str, str]] = []
    json_keys: list[str] = []
    list_keys: list[str] = []
    for key, value in _list_items(context):
        if not isinstance(key, str):
            raise PayloadError(f"context has the key {key!r}; keys must be str.")
        check_text(key, f"the key {key!r} of context")
        path = f"context[{key!r}]"
        if isinstance(value, str):
            pairs.append((key, check_text(value, path)))
        elif type(value) is list and value and all(isinstance(item, str) for item in value):
            list_keys.append(key)
            pairs.extend((key, check_text(item, f"{path}[{i}]")) for i, item in enumerate(value))
        else:
            json_keys.append(key)
            pairs.append((key, payloads.dumps(value, path)))
    body = "&".join([f"{_quote(key)}={_quote(value)}" for key, value in pairs]).encode("ascii")
    _check_upload_settings(len(body), len(pairs))
    return body, tuple(json_keys), tuple(list_keys)


# By byte, what urlencode() makes of it; which looks each character up in Python, and took twice as long.
_QUOTED: Final = {byte: quote_plus(bytes([byte])) for byte in range(256)}


def _quote(text: str) -> str:
    return text.encode().decode("latin-1").translate(_QUOTED)


def _list_items(context: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Return the items of a context; those of a posted form, `request.POST`, with all their values."""
    if not isinstance(context, MultiValueDict):
        return context.items()
    return [(key, values[0] if len(values) == 1 else values) for key, values in context.lists()]


def _check_upload_settings(size: int, fields: int) -> None:
    most = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if most is not None and size > most:
        raise TaskTooLargeError(
            f"The context takes {size:,} bytes as a form, and DATA_UPLOAD_MAX_MEMORY_SIZE of this site is {most:,}: "
            "the task could not be read. Keep the data in the database and pass its key."
        )
    most = django_settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    if most is not None and fields > most:
        raise TaskTooLargeError(
            f"The context has {fields:,} fields, and DATA_UPLOAD_MAX_NUMBER_FIELDS of this site is {most:,}: "
            "the task could not be read. Send a list of other things than str, which is one field."
        )


def check_form(content_type: str, charset: str | None, content_encoding: str, body: bytes) -> None:
    """Refuse a body that is no form of ours.

    Raises:
        PayloadError: another content type, charset or encoding, or text that is not UTF-8.
    """
    if content_encoding not in ("", "identity"):
        raise PayloadError(f"The body is encoded as {content_encoding[:40]!r}; tasks travel without encoding.")
    if content_type != CONTENT_TYPE and (body or content_type):
        raise PayloadError(f"The body is of type {content_type[:80]!r}; a task is a form ({CONTENT_TYPE}).")
    if charset is not None and charset.lower() != "utf-8":
        raise PayloadError(f"The body is in the charset {charset[:40]!r}; tasks are UTF-8.")
    most = django_settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
    if most is not None and body.count(b"&") >= most:
        raise PayloadError(f"The body has more fields than DATA_UPLOAD_MAX_NUMBER_FIELDS ({most:,}).")
    try:
        text = body.decode("ascii")
        if "%" in text:
            text = unquote_to_bytes(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise PayloadError(f"The body is no UTF-8 form: {error}") from None
    if "\x00" in text:
        raise PayloadError("The body holds a NUL character.")


def decode_context(post: QueryDict, json_keys: tuple[str, ...] = (), list_keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the context that `encode_context` was given.

    Raises:
        PayloadError: a typed key is missing or holds no typed JSON.
    """
    context: dict[str, Any] = {}
    for key, values in post.lists():
        if key in list_keys:
            context[key] = values
        elif key in json_keys:
            if len(values) != 1:
                raise PayloadError(f"context[{key!r}] stands there {len(values)} times.")
            try:
                context[key] = payloads.loads(values[0])
            except PayloadError as error:
                raise PayloadError(f"context[{key!r}]: {error}") from error
        else:
            # A form from elsewhere may repeat a key without saying so.
            context[key] = values[-1] if len(values) == 1 else values
    if missing := (set(json_keys) | set(list_keys)) - set(context):
        raise PayloadError(f"The body lacks {', '.join(sorted(missing))[:200]}.")
    return context
