"""How the text of a deferred call travels: in its task, packed where that is shorter, or in the state where it must."""

from __future__ import annotations

import base64
import binascii
import string
import zlib
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote_plus, urlencode

from django.conf import settings as django_settings

from soc_tasks.backends.base import MAX_TASK_BYTES
from soc_tasks.conf import get_settings
from soc_tasks.errors import PayloadError, TaskTooLargeError
from soc_tasks.logic import calls
from soc_tasks.state import get_state

#: Characters from which packing is tried; shorter texts gain nothing that is worth the time.
PACKED_FROM: Final = 2048
#: What stays as it is in a form; a blank becomes one character as well, and any other one three.
_SAFE: Final = (string.ascii_letters + string.digits + "_.-~ ").encode("ascii")
#: Bytes of a task beside its body: URL, headers, names.
BESIDE: Final = 24_576
#: For how long a text is kept beyond its task's eta, at least: as long as Cloud Tasks keeps a task.
LIFE: Final = timedelta(days=31)

#: Characters of a function's name that travel for people, and of them in a form.
LABEL: Final = 200
_LONGEST_LABEL: Final = 16 * LABEL

#: Where a form may have as many bytes, a text that is not packed fits whatever it is: escaped, beside its label and
#: the other fields.
_ALWAYS_FITS: Final = 3 * PACKED_FROM + _LONGEST_LABEL + 1024

_HOW: Final = ("payload", "packed", "stored")


class CallEndedError(Exception):
    """What a call needs is gone: the call was made, or given up."""


class CallNotHereError(Exception):
    """What a call needs is not in the state: not yet, where a transaction has still to commit, or not any more."""


def seal(written: calls.Written, function: str, *, small: bool = False) -> tuple[dict[str, str], bytes | None]:
    """Return the context of the task for a call, and what is to be kept in the state for it, if anything.

    Args:
        written: the call.
        function: what it calls, for people.
        small: whether it must travel in the task.

    Raises:
        TaskTooLargeError: it must, and is too large.
    """
    text = written.text
    context = {"function": function[:LABEL], "signature": calls.sign(text)}
    inline = None if written.is_private else _fit(text, context)
    if inline is not None:
        return {**context, **inline}, None
    if small:
        why = "hold a queryset" if written.is_private else f"take {len(text):,} bytes"
        raise TaskTooLargeError(
            f"The arguments of {function} {why}, which does not travel in a task; leave _small_task out, and they are "
            "kept in the database until it has run."
        )
    return {**context, "stored": "1"}, _compress(text)


def _fit(text: str, context: dict[str, str]) -> dict[str, str] | None:
    """Return how a text travels in a task, the shorter way; None: it is too large."""
    if len(text) < PACKED_FROM and _most() >= _ALWAYS_FITS:
        return {"payload": text}
    room, plain = _most() - len(urlencode({**context, "payload": ""})), _quoted_length(text)
    if len(text) >= PACKED_FROM:
        # Without the padding, each sign of which takes three bytes in a form.
        packed = base64.urlsafe_b64encode(_compress(text)).decode("ascii").rstrip("=")
        if len(packed) < plain:
            return {"packed": packed} if len(packed) <= room else None
    return {"payload": text} if plain <= room else None


def _compress(text: str) -> bytes:
    return zlib.compress(text.encode("ascii"), 6)


def _quoted_length(text: str) -> int:
    """Return `len(quote_plus(text))`, without the copy."""
    return len(text) + 2 * len(text.encode("ascii").translate(None, _SAFE))


def _most() -> int:
    """Return how many bytes the form of a task may have that this site can read."""
    most = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    room = MAX_TASK_BYTES - BESIDE
    return room if most is None else min(room, most)


def open_sealed(context: dict[str, Any], start_id: str) -> str:
    """Return the text of a call.

    Args:
        context: what came with the task.
        start_id: of the task.

    Raises:
        CallEndedError: it was made before.
        CallNotHereError: it is not there.
        PayloadError: it is none of ours.
    """
    names = context.keys() - {"function", "signature"}
    if len(names) != 1 or not names <= set(_HOW) or not all(isinstance(value, str) for value in context.values()):
        raise PayloadError("This is no deferred call: its fields are others.")
    [how] = names
    text = context["payload"] if how == "payload" else _open_packed(context, how, start_id)
    if not calls.is_signed(text, context.get("signature", "")):
        raise PayloadError(
            "The signature of this deferred call is not ours. If SECRET_KEY was changed, put the old one into "
            "SECRET_KEY_FALLBACKS and retry the task."
        )
    return text


def _open_packed(context: dict[str, Any], how: str, start_id: str) -> str:
    packed: bytes | None
    try:
        packed = _decode(context["packed"]) if how == "packed" else get_state().get_payload(start_id)
        if packed == b"" and how == "stored":
            raise CallEndedError
        if packed is None:
            raise CallNotHereError("The arguments of this deferred call are not in the state.")
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed, calls.MOST_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            raise PayloadError("What is packed in this deferred call is too large, or not whole.")
        return text.decode("ascii")
    except (binascii.Error, zlib.error, ValueError) as error:
        raise PayloadError(f"What is packed in this deferred call is damaged: {error}") from error


def _decode(packed: str) -> bytes:
    return base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))


def read_function(body: bytes) -> str | None:
    """Return what a task calls by the body that it is sent with, for people; None: it is no deferred call."""
    # First, as `seal` has it; the rest may be large.
    name, _, value = body[:_LONGEST_LABEL].partition(b"&")[0].partition(b"=")
    return unquote_plus(value.decode("ascii", "replace")) if name == b"function" else None


def keep(start_id: str, kept: bytes, eta: datetime | None) -> None:
    """Keep what a task needs in the state, in its open transaction, for as long as the task or its letter may live."""
    state = get_state()
    now = state.now()
    since = max(eta, now) if eta is not None else now
    state.keep_payload(start_id, kept, since + LIFE + timedelta(days=get_settings().retention_days))


def forget(*start_ids: str) -> None:
    """Drop what was kept for tasks that have ended; that they have is kept for as long as they may come again."""
    get_state().clear_payloads(start_ids)
