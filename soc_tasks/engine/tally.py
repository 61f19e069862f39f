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
        #: By minute and queue: succeeded, failed, dead, seconds spent.
        self._counts: dict[int, dict[str, list[float]]] = {}

    def count(self, verdicts: Sequence[Verdict], now: int) -> None:
        """Count verdicts that were written down `now`; what ran into another attempt, or was not run, is none."""
        minute = now - now % MINUTE
        # Most verdicts are that a task is done; looking an enumeration's member up in a set would take longest of all.
        done = Outcome.DONE
        with self._lock:
            counts = self._counts.get(minute)
            if counts is None:
                counts = self._counts[minute] = {}
            for verdict in verdicts:
                outcome, queue = verdict.outcome, verdict.leased.queue
                if outcome is not done and outcome not in _FAILURES:
                    continue
                row = counts.get(queue)
                if row is None:
                    row = counts[queue] = [0, 0, 0, 0.0]
                row[3] += verdict.seconds
                if outcome is done and not verdict.dead:
                    row[0] += 1
                else:
                    row[1] += 1
                    row[2] += outcome is not Outcome.RETRY

    def flush(self, keeper: Keeper) -> bool:
        """Hand over what was counted since the last time; return whether there was anything.

        What cannot be written is kept for the next time, for an hour.
        """
        with self._lock:
            taken, self._counts = self._counts, {}
        records = sorted(
            _make(minute, queue, *row) for minute, counts in taken.items() for queue, row in counts.items()
        )
        if not records:
            return False
        try:
            keeper.add_minutes(records)
        except Error as error:
            # That the database is not to be had is told by those who need it more.
            logger.debug("the counts of attempts are not written, and kept for later: %s", error)
            self._put_back(records)
        return True

    def _put_back(self, records: Sequence[MinuteRecord]) -> None:
        oldest = records[-1].minute - PATIENCE
        with self._lock:
            for minute, queue, *counts, spent in records:
                if minute >= oldest:
                    row = self._counts.setdefault(minute, {}).setdefault(queue, [0, 0, 0, 0.0])
                    row[:] = [there + more for there, more in zip(row, (*counts, spent / SECOND), strict=True)]


def _make(minute: int, queue: str, succeeded: float, failed: float, dead: float, seconds: float) -> MinuteRecord:
    return MinuteRecord(minute, queue, int(succeeded), int(failed), int(dead), round(seconds * SECOND))


_FAILURES: Final = (Outcome.RETRY, Outcome.EXHAUSTED)
