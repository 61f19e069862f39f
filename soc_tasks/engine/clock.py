"""Time, injected. Wall time is whole microseconds since the epoch (what the tables hold); intervals are monotonic."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from django.db import Error

SECOND: Final = 1_000_000
#: Seconds for which a database's time is counted on, unless this machine's clocks drift apart by so many seconds.
ASK_AGAIN: Final = 60.0
SLEPT: Final = 0.5
#: Seconds by which an answer may be off before the server is asked once more.
CLOSE: Final = 0.002
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


class DatabaseClock:
    """The clock of a database server, for hosts whose own clocks differ: asked now and then, counted on in between.

    Between two questions time goes by this machine's monotonic clock, so that nobody's setting of the wall clock here
    matters. Where the server cannot be asked, the last answer serves.

    Args:
        ask: asks the server for microseconds since the epoch.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        #: Server time less monotonic time, microseconds, as of the last question; and that moment, monotonic.
        self._offset: int | None = None
        self._asked = 0.0
        #: Wall time less monotonic time here, seconds: differs after this machine slept, when the counting is off.
        self._lag = 0.0

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""
        monotonic = time.monotonic()
        offset = self._offset
        if offset is None or monotonic - self._asked > ASK_AGAIN or abs(self._measure_lag() - self._lag) > SLEPT:
            offset = self.sync()
        return offset + round(time.monotonic() * SECOND)

    def sync(self) -> int:
        """Ask the server; return its time less monotonic time here, in microseconds."""
        try:
            doubt, offset = self._measure_offset()
            if doubt > CLOSE:
                # The first time a connection is opened as well.
                doubt, offset = min((doubt, offset), self._measure_offset())
        except Error:
            # Whoever asks for the time is about to use the database, and learns it there.
            if self._offset is None:
                return time.time_ns() // 1000 - round(time.monotonic() * SECOND)
            self._asked = time.monotonic()
            return self._offset
        self._lag = self._measure_lag()
        self._asked = time.monotonic()
        # A slow answer tells the time less well than what was known, unless it contradicts that.
        if self._offset is None or abs(offset - self._offset) > doubt * SECOND:
            self._offset = offset
        return self._offset

    def monotonic(self) -> float:
        """Return seconds on a clock that nobody sets."""
        return time.monotonic()

    def _measure_offset(self) -> tuple[float, int]:
        """Ask once; return by how many seconds the answer may be off, and the offset."""
        before = time.monotonic()
        answer = self._ask()
        after = time.monotonic()
        return (after - before) / 2, answer - round((before + after) / 2 * SECOND)

    @staticmethod
    def _measure_lag() -> float:
        return time.time() - time.monotonic()


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
