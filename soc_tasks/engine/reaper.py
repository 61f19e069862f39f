"""Which workers are dead: judged by change, on the observer's own monotonic clock, so that nobody's wall clock matters.

A process of this machine that has ended is dead at once. Any other is dead when its count of beats has stood still for
a whole lease while the observer itself was well: an observer that was stopped, or that waited for the database, knows
that others may have waited likewise, and grants everybody another lease.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from soc_tasks.engine.clock import Clock
from soc_tasks.engine.processes import is_gone, this_host
from soc_tasks.engine.records import WorkerRecord

IsGone = Callable[[int, int], bool]


class Reaper:
    """Watches the beats of other workers.

    Args:
        clock: only its monotonic time is used.
        lease: seconds without a beat after which a worker is dead.
        host: the machine of the observer.
        gone: tells whether a process of that machine has ended.
    """

    def __init__(self, clock: Clock, lease: float, host: str | None = None, gone: IsGone = is_gone) -> None:
        self._clock = clock
        self._lease = lease
        self._host = this_host() if host is None else host
        self._gone = gone
        #: By worker: its count of beats, and when that was first seen.
        self._seen: dict[int, tuple[int, float]] = {}
        self._last = clock.monotonic()

    @property
    def patience(self) -> float:
        """Return the seconds of waiting after which the observer no longer trusts what it saw."""
        return self._lease / 4

    def forget(self) -> None:
        """Grant everybody another lease."""
        self._seen.clear()

    def find_dead(self, records: Sequence[WorkerRecord]) -> list[WorkerRecord]:
        """Return those of the workers that are dead; to be called several times in a lease."""
        now = self._clock.monotonic()
        if now - self._last > self._lease / 2:
            self.forget()
        self._last = now
        dead, seen = [], {}
        for record in records:
            beats, since = self._seen.get(record.id, (-1, now))
            if beats != record.beats:
                beats, since = record.beats, now
            seen[record.id] = (beats, since)
            if now - since >= self._lease or self._has_ended(record):
                dead.append(record)
        self._seen = seen
        return dead

    def _has_ended(self, record: WorkerRecord) -> bool:
        return record.host == self._host and self._gone(record.pid, record.born)
