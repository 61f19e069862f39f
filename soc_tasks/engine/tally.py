"""What came of attempts, counted by minute and queue: in memory, and now and then added to the table."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from django.db import Error

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.verdicts import Outcome, Verdict

logger = logging.getLogger("soc_tasks.engine")

MINUTE: Final = 60 * SECOND
#: For how long counts are kept that the database does not take, microseconds.
PATIENCE: Final = 60 * MINUTE


class Keeper(Protocol):
    """Keeps counts: a store."""

    def add_minutes(self, records: Sequence[MinuteRecord]) -> None:
        """Add counts to what is kept of the same minutes and queues."""


class Tally:
    """Counts the verdicts of one process; any thread may ask it to hand over what it has.

    What a process that dies has not handed over is not counted: these are figures to look at, not to bill by.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: By minute and queue: succeeded, failed, dead, spent.
        self._counts: dict[tuple[int, str], list[int]] = {}
        self._well = True

    def count(self, verdicts: Sequence[Verdict], now: int) -> None:
        """Count verdicts that were written down `now`; what ran into another attempt, or was not run, is none."""
        minute, counts = now - now % MINUTE, self._counts
        with self._lock:
            for verdict in verdicts:
                outcome = verdict.outcome
                if outcome in _UNCOUNTED:
                    continue
                key = (minute, verdict.leased.queue)
                row = counts.get(key)
                if row is None:
                    row = counts[key] = [0, 0, 0, 0]
                row[3] += round(verdict.seconds * SECOND)
                if outcome is Outcome.DONE and not verdict.dead:
                    row[0] += 1
                    continue
                row[1] += 1
                row[2] += outcome is not Outcome.RETRY

    def flush(self, keeper: Keeper) -> bool:
        """Hand over what was counted since the last time; return whether there was anything.

        What cannot be written is kept for the next time, for an hour.
        """
        with self._lock:
            taken = sorted(self._counts.items())
            self._counts.clear()
        if not taken:
            return False
        records = [MinuteRecord(*key, *row) for key, row in taken]
        try:
            keeper.add_minutes(records)
        except Error as error:
            if self._well:
                logger.warning("the counts of attempts are not written, and kept for later: %s", error)
            self._well = False
            self._put_back(records)
        else:
            self._well = True
        return True

    def _put_back(self, records: Sequence[MinuteRecord]) -> None:
        oldest = records[-1].minute - PATIENCE
        with self._lock:
            for minute, queue, *counts in records:
                if minute >= oldest:
                    row = self._counts.setdefault((minute, queue), [0, 0, 0, 0])
                    row[:] = [there + more for there, more in zip(row, counts, strict=True)]


_UNCOUNTED: Final = frozenset({Outcome.BUSY, Outcome.RETURNED, Outcome.UNKNOWN})
