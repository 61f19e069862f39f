"""Holding a run back: a function of the site is asked between batches whether it may go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from soc_tasks.values import MAX_SECONDS, Hold

#: Asked without arguments: falsy to go on; else `Hold`, seconds, a timedelta, or a text that says why not.
Throttle = Callable[[], Any]

#: Seconds for which an answer holds, so that quick batches do not ask more than they work.
ASKED_EVERY: Final = 1.0
#: Seconds to hold back where only the reason is told.
DEFAULT_HOLD: Final = 10.0

#: Tells when to ask again; seconds.
clock = time.monotonic


class Gate:
    """Asks a throttle, not too often.

    Args:
        throttle: what is asked; None: nothing holds back.
    """

    def __init__(self, throttle: Throttle | None) -> None:
        self._throttle = throttle
        self._asked: float | None = None

    def ask(self) -> Hold | None:
        """Return how to hold back, or None to go on.

        Raises:
            TypeError: the throttle answered with something else.
            ValueError: the time to hold back is out of range.
            Exception: what the throttle raised.
        """
        if self._throttle is None or (self._asked is not None and clock() - self._asked < ASKED_EVERY):
            return None
        self._asked = clock()
        return read_hold(self._throttle(), self._throttle)


def read_hold(answer: Any, throttle: Any) -> Hold | None:
    """Return what a throttle answered as a `Hold`, or None to go on.

    Raises:
        TypeError: it is none of what a throttle may answer.
        ValueError: the time to hold back is out of range.
    """
    if answer is None or answer is False:
        return None
    if isinstance(answer, Hold):
        return answer
    if isinstance(answer, timedelta):
        answer = answer.total_seconds()
    if isinstance(answer, str):
        return Hold(DEFAULT_HOLD, answer) if answer else None
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return Hold(float(answer)) if answer else None
    raise TypeError(
        f"{throttle!r:.200} is a throttle, and must return None to go on, or a Hold, seconds (up to {MAX_SECONDS:,}), "
        f"a timedelta or a reason to hold back, not {answer!r:.100}."
    )
