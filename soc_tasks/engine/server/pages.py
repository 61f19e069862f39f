"""Page tokens: where a list goes on, for two hours."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.server import errors

#: Seconds (reference of ListTasks).
VALID: Final = 7200


def make_token(parent: str, last: str, now: int) -> str:
    """Return the token of the page after the element called `last`.

    Args:
        parent: what is listed.
        last: what the page before ended with.
        now: microseconds.
    """
    return base64.urlsafe_b64encode(json.dumps([parent, last, now // SECOND + VALID]).encode()).decode()


def read_token(token: str, parent: str, now: int) -> str:
    """Return what the page before ended with; "" for the first page.

    Raises:
        ApiError: the token is malformed, too old, or of another list (the texts are ours).
    """
    if not token:
        return ""
    try:
        of, last, until = json.loads(base64.urlsafe_b64decode(token.encode()))
        if not isinstance(last, str) or not isinstance(until, int):
            raise TypeError
    except (ValueError, TypeError, binascii.Error):
        raise errors.invalid("The page token is malformed.") from None
    if of != parent:
        raise errors.invalid("The page token belongs to another list.")
    if until < now // SECOND:
        raise errors.invalid("The page token has expired.")
    return last


def page_size(wanted: int, most: int) -> int:
    """Return how many elements a page has: the most there may be unless fewer are wanted.

    Raises:
        ApiError: the number is negative (ours).
    """
    if wanted < 0:
        raise errors.invalid("The page size cannot be negative.")
    return min(wanted or most, most)
