"""A budget of time that a task asks for what is left of it, Melange's `Timekeeper`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from soc_tasks.errors import DeadlineExceededError

T = TypeVar("T")


class Timekeeper:
    """Counts down from its making.

    Args:
        milliseconds: the budget.
        clock: a monotonic clock in seconds.

    Raises:
        ValueError: `milliseconds` is negative or no number.
    """

    def __init__(self, milliseconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        number = isinstance(milliseconds, (int, float)) and not isinstance(milliseconds, bool)
        if not number or not 0 <= milliseconds < float("inf"):
            raise ValueError(f"milliseconds must be a number of 0 or more, not {milliseconds!r}.")
        self._clock = clock
        self._milliseconds = milliseconds
        self._end = clock() + milliseconds / 1000

    def ping(self) -> timedelta:
        """Return the time left.

        Raises:
            DeadlineExceededError: nothing is left.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise DeadlineExceededError(f"The {self._milliseconds:g} ms that were given are used up.")
        return timedelta(seconds=left)

    def iterate(self, items: Iterable[T]) -> Iterator[tuple[timedelta, T]]:
        """Yield `(time_left, item)` for each item.

        Raises:
            DeadlineExceededError: the time is used up before the next item.
        """
        for item in items:
            yield self.ping(), item
