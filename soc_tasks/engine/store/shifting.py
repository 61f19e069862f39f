"""When somebody sets the clock: what waits is moved along, so that nobody waits longer, or less, for that."""

from __future__ import annotations

from typing import Final

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.leases import LeaseStore
from soc_tasks.engine.store.rows import QUEUES, TASKS, State

# What had an attempt, or was busy, or unknown, waits for so many seconds; anything else for a moment of its own.
_TRIED: Final = "(attempts > 0 OR busy > 0 OR unknown IS NOT NULL)"
# MySQL assigns from left to right and reads what it has just written: `unknown`, which the condition reads, comes last.
_SHIFT: Final = (
    f"UPDATE {TASKS} SET due = CASE WHEN %s THEN due + %%s ELSE due END, first_attempt = first_attempt + %%s,"
    f" unknown = unknown + %%s WHERE state IN ({State.WAITING:d}, {State.RUNNING:d}, {State.SUSPECT:d}) AND %s"
)
# Set forward: who waits for a moment is due when that has come, who waits for so many seconds has them still before it.
_FORWARD: Final = _SHIFT % (f"due > %s AND {_TRIED}", _TRIED)
# Set back: what was due is due still, in its order. New tasks whose due time is already of the new clock stay.
_BACK: Final = _SHIFT % (
    f"due > 0 AND (due <= %s OR {_TRIED})",
    f"(due <= %s OR {_TRIED}) AND (id <= %s OR created > %s)",
)
_BUCKETS: Final = (
    f"UPDATE {QUEUES} SET filled = CASE WHEN filled > 0 THEN filled + %s ELSE filled END,"
    " capped = CASE WHEN capped > 0 THEN capped + %s ELSE capped END"
)


class ShiftStore(LeaseStore):
    """The part of a store that knows that clocks are set."""

    def find_newest(self) -> int:
        """Return the id of the newest row."""
        return int(self.select(f"SELECT max(id) FROM {TASKS}")[0][0] or 0)

    def shift_clock(self, by: int, newest: int) -> None:
        """Move along what waits, after the clock was set."""
        now = self.clock.now()
        before = now - by
        with self.writing() as cursor:
            if by > 0:
                cursor.execute(_FORWARD, (before, by, by, by))
            else:
                cursor.execute(_BACK, (before, by, by, by, before, newest, now + SECOND))
            cursor.execute(_BUCKETS, (by, by))
            self.wake_on_commit()
