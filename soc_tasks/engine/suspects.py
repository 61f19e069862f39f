"""Suspects: tasks whose process died while it ran them among others.

Each is run alone, so that only the guilty are blamed.
A process that runs nothing takes a suspect at once. If none does for a second, the leader claims nothing more until it
is free: one process makes room, and the others go on. They do likewise only for a suspect that nobody took for long,
because the leader runs a long task, or works on other queues.
"""

from __future__ import annotations

from typing import Final

from soc_tasks.engine.clock import Clock
from soc_tasks.engine.store.base import Queues, Store
from soc_tasks.engine.store.rows import Leased

#: Seconds between looks.
INTERVAL: Final = 1.0
#: Seconds after which room is made: by the leader, and by the others.
PATIENCE, LONG_PATIENCE = 1.0, 60.0


class Suspects:
    """Decides when this process takes a suspect.

    Args:
        store: where they wait.
        clock: tells how long they have waited.
        queues: the queues that this worker works on.
    """

    def __init__(self, store: Store, clock: Clock, queues: Queues) -> None:
        self._store = store
        self._clock = clock
        self._queues = queues
        self._look_at = 0.0
        self._waiting_since: float | None = None
        #: The suspect that would be next, by when it was due; another one: somebody took it.
        self._next: int | None = None
        self._leads = False
        #: Whether a suspect runs here: nothing else may be claimed.
        self.alone = False

    @property
    def making_room(self) -> bool:
        """Tell whether nothing should be claimed, so that a suspect can run here."""
        if self.alone:
            return True
        since = self._waiting_since
        patience = PATIENCE if self._leads else LONG_PATIENCE
        return since is not None and self._clock.monotonic() - since > patience

    @property
    def is_needed(self) -> bool:
        """Tell whether `take` has something to do, or nothing else may be done."""
        return self.alone or self._waiting_since is not None or self._clock.monotonic() >= self._look_at

    def look_soon(self) -> None:
        """Look at the next opportunity: tasks of a dead worker came back."""
        self._look_at = 0.0

    def take(self, worker: int, *, idle: bool, leads: bool) -> Leased | None:
        """Claim a suspect, if this process is idle and one is due; return it.

        Args:
            worker: who leases it.
            idle: whether this process runs nothing.
            leads: whether it is the one that makes room.
        """
        self._leads = leads
        if idle:
            self.alone = False
        now = self._clock.monotonic()
        known = idle and self._waiting_since is not None
        if self.alone or (now < self._look_at and not known):
            return None
        self._look_at = now + INTERVAL
        due = self._store.next_suspect(self._queues)
        if due is None:
            self._waiting_since = None
            return None
        if not idle:
            if self._waiting_since is None or (due != self._next and not leads):
                self._waiting_since = now
            self._next = due
            return None
        self._waiting_since = None
        # There may be more of them.
        self._look_at = 0.0
        leased = self._store.claim_suspect(worker, self._queues)
        self.alone = leased is not None
        return leased
