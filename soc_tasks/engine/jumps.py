"""Noticing that somebody set the clock: the wall clock against the one that nobody sets."""

from __future__ import annotations

from typing import Final

from soc_tasks.engine.clock import SECOND, Clock

#: Seconds by which the two must have come apart between two looks; corrections by degrees never do that.
LEAST: Final = 1.0
#: Seconds within which both are read, or else nothing is known.
QUICK: Final = 0.1


class ClockWatch:
    """Watches a clock.

    Args:
        clock: the clock that says what is due.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Wall time less monotonic time, in microseconds.
        self._lag = self._measure()

    def look(self) -> int:
        """Return by how many microseconds the wall clock was set since the last look; below 0: back."""
        lag = self._measure()
        if lag is None:
            return 0
        before, self._lag = self._lag, lag
        return lag - before if before is not None and abs(lag - before) > LEAST * SECOND else 0

    def _measure(self) -> int | None:
        began = self._clock.monotonic()
        now = self._clock.now()
        if self._clock.monotonic() - began > QUICK:
            # This process was stopped in between, or the database was slow to tell.
            return None
        return now - round(began * SECOND)
