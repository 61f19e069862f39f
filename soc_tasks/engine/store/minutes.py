"""What came of attempts, by minute and queue: added up by workers, read for charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.store.rows import MINUTES
from soc_tasks.engine.store.shifting import ShiftStore

#: Seconds for which minutes are kept.
KEPT: Final = 48 * 3600
#: Minutes of queues that are read at most: those of an hour, for more queues than anybody looks at.
MOST: Final = 60 * 500

_COLUMNS: Final = MinuteRecord._fields
_COUNTS: Final = _COLUMNS[2:]
_INSERT: Final = f"INSERT INTO {MINUTES} ({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"


class MinuteStore(ShiftStore):
    """The part of a store that keeps counts."""

    #: What stands behind an INSERT that adds to the row that is there.
    add_up: ClassVar[str] = " ON CONFLICT (minute, queue) DO UPDATE SET " + ", ".join(
        f"{name} = {MINUTES}.{name} + excluded.{name}" for name in _COUNTS
    )

    def add_minutes(self, records: Sequence[MinuteRecord]) -> None:
        """Add counts to what is kept of the same minutes and queues."""
        with self.writing() as cursor:
            # All workers in one order, or two of them could wait for each other.
            cursor.executemany(f"{_INSERT}{self.add_up}", sorted(records))

    def list_minutes(self, since: int) -> list[MinuteRecord]:
        """Return what came of attempts in the minutes that began at `since` or later, in their order."""
        rows = self.select(
            f"SELECT {', '.join(_COLUMNS)} FROM {MINUTES} WHERE minute >= %s ORDER BY minute, queue LIMIT {MOST}",
            (since,),
        )
        records = [MinuteRecord._make(row) for row in rows]
        return [record for record in records if self.means(record.queue)]

    def sweep_minutes(self, cursor: CursorWrapper, limit: int) -> None:
        """Forget some of the minutes that are past their time."""
        before = self.clock.now() - KEPT * SECOND
        rows = self.fetch(cursor, f"SELECT id FROM {MINUTES} WHERE minute < %s LIMIT %s", (before, limit))
        if rows:
            cursor.executemany(f"DELETE FROM {MINUTES} WHERE id = %s", rows)
