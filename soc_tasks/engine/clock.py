"""Time, injected. Wall time is whole microseconds since the epoch (what the tables hold); intervals are monotonic."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

SECOND: Final = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return time.monotonic()


class FakeClock:
    """A clock that stands still until it is told to move: for tests.

    Args:
        start: where it starts, in microseconds since the epoch.
    """

    def __init__(self, start: int = 1_800_000_000 * SECOND) -> None:
        self._now = start
        self._monotonic = 1000.0

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += round(seconds * SECOND)
        self._monotonic += seconds

    def set_back(self, seconds: float) -> None:
        """Set the wall clock back, as an operator would; a negative value sets it forward."""
        self._now -= round(seconds * SECOND)


def to_micros(moment: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return microseconds since the epoch as a datetime in UTC."""
    return _EPOCH + timedelta(microseconds=micros)
