"""Pauses between long SQLite transactions, so that everybody else comes to write.

SQLite has one writer, and whoever waits asks again every 100 ms at last (sqliteDefaultBusyCallback). A run that begins
its next transaction as soon as the last has ended is never caught between the two: it would keep requests and other
workers out until their timeout, 5 s by default. So it pauses once in a while for longer than they sleep. The pauses
follow the wall clock, which all processes share, so that two runs do not fill each other's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds between two pauses: well below the default timeout of those who wait.
PERIOD: Final = 2.0
#: Seconds of a pause: longer than the longest sleep of SQLite's busy handler.
PAUSE: Final = 0.11


class SqliteBreather:
    """Pauses at the first call in each period.

    Args:
        clock: wall clock, in seconds.
        sleep: waits for seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._period = clock() // PERIOD

    def __call__(self) -> None:
        """Pause, if it is time."""
        period = self._clock() // PERIOD
        if period != self._period:
            self._period = period
            self._sleep(PAUSE)
