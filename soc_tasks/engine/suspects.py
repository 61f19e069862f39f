"""Suspects: tasks whose process died while it ran them among others.

Each is run alone, so that only the guilty are blamed.
A process that runs nothing takes a suspect at once. If none does for a second, all stop claiming until one is free.
"""

from __future__ import annotations

from typing import Final

from soc_tasks.engine.clock import Clock
from soc_tasks.engine.store.base import Queues, Store
from soc_tasks.engine.store.rows import Leased

#: Seconds between looks.
INTERVAL: Final = 1.0
#: Seconds after which room is made.
PATIENCE: Final = 1.0


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
        #: Whether a suspect runs here: nothing else may be claimed.
        self.alone = False

    @property
    def making_room(self) -> bool:
        """Tell whether nothing should be claimed, so that a suspect can run here."""
        if self.alone:
            return True
        since = self._waiting_since
        return since is not None and self._clock.monotonic() - since > PATIENCE

    def look_soon(self) -> None:
        """Look at the next opportunity: tasks of a dead worker came back."""
        self._look_at = 0.0

    def take(self, worker: int, *, idle: bool) -> Leased | None:
        """Claim a suspect, if this process is idle and one is due; return it.

        Args:
            worker: who leases it.
            idle: whether this process runs nothing.
        """
        if idle:
            self.alone = False
        now = self._clock.monotonic()
        known = idle and self._waiting_since is not None
        if self.alone or (now < self._look_at and not known):
            return None
        self._look_at = now + INTERVAL
        if self._store.next_suspect(self._queues) is None:
            self._waiting_since = None
            return None
        if not idle:
            if self._waiting_since is None:
                self._waiting_since = now
            return None
        self._waiting_since = None
        # There may be more of them.
        self._look_at = 0.0
        leased = self._store.claim_suspect(worker, self._queues)
        self.alone = leased is not None
        return leased
