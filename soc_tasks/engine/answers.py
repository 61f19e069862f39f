"""What an answer's status and headers say; what cannot be read counts as not said."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from soc_tasks.values import MAX_SECONDS, Answer

#: The statuses with which a service asks to be called less; with others `Retry-After` means something else.
OVERLOADED: Final = frozenset({429, 503})
_OUTCOMES: Final = ("dead", "busy", "unknown")


def make_answer(status: int, outcome: str | None, countdown: str | None, retry_after: str | None) -> Answer:
    """Return what a call was answered with.

    Args:
        status: HTTP status.
        outcome: value of the outcome header.
        countdown: value of the countdown header.
        retry_after: value of `Retry-After`.
    """
    return Answer(
        status=status,
        outcome=outcome if outcome in _OUTCOMES else "",
        countdown=None if countdown is None else read_countdown(countdown),
        retry_after=None if retry_after is None or status not in OVERLOADED else read_retry_after(retry_after),
    )


def read_countdown(text: str) -> float | None:
    """Return the seconds that a countdown header asks for, from 0 to 30 days; None if it is malformed."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return None if math.isnan(seconds) else min(max(0.0, seconds), float(MAX_SECONDS))


def read_retry_after(text: str, now: datetime | None = None) -> float | None:
    """Return the seconds that a `Retry-After` asks for, from 0 to 30 days; None if it is malformed.

    Args:
        text: whole seconds or an HTTP date (RFC 9110, 10.2.3).
        now: the present, for a date.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        # int() refuses a text of thousands of digits; whoever asks for so long gets the most there is.
        return float(min(int(text), MAX_SECONDS)) if len(text) <= 10 else float(MAX_SECONDS)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return min(max(0.0, seconds), float(MAX_SECONDS))
