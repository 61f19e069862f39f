"""A worker's duties beside its tasks: to show that it is alive, to see who is not, and regular upkeep."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.engine import hooks
from soc_tasks.engine.clock import Clock
from soc_tasks.engine.processes import born, this_host
from soc_tasks.engine.reaper import Reaper
from soc_tasks.engine.store.base import Store

logger = logging.getLogger("soc_tasks.engine")

#: Seconds between two rounds of upkeep.
UPKEEP: Final = 5.0
_DAY: Final = 86400.0


class Caretaker:
    """Keeps a worker's row, and watches the others'.

    Args:
        store: where the rows are.
        clock: tells when it is time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lease = get_settings().lease_seconds
        self._reaper = Reaper(clock, self._lease)
        self._beat_at = 0.0
        #: The id under which this process leases tasks.
        self.worker = 0
        #: Whether this is the oldest worker: it alone does the upkeep.
        self.leads = False
        #: When `care` has something to do again.
        self.next_at = 0.0

    def join(self) -> None:
        """Enter this process."""
        self.worker = self._store.join(this_host(), os.getpid(), born(os.getpid()))
        self._beat_at = self._clock.monotonic() + self._lease / 3

    def care(self) -> int:
        """Beat and reap, as far as it is time; return how many tasks of dead workers came back."""
        now = self._clock.monotonic()
        if now < self.next_at:
            return 0
        if now >= self._beat_at:
            if not self._store.beat(self.worker):
                logger.warning(
                    "this worker was silent for longer than its lease of %g s; its tasks were given to others",
                    self._lease,
                )
                self.join()
            if self._clock.monotonic() - now > self._reaper.patience:
                # The database was locked: others may not have got through yet.
                self._reaper.forget()
            self._beat_at = self._clock.monotonic() + self._lease / 3
        records = self._store.list_workers()
        self.leads = bool(records) and records[0].id == self.worker
        count = 0
        for record in self._reaper.find_dead([record for record in records if record.id != self.worker]):
            returned = self._store.reclaim(record, self._reaper.patience)
            if returned is None:
                self._reaper.forget()
                continue
            logger.warning("worker %d (process %d) is dead; %d of its tasks came back", record.id, record.pid, returned)
            count += returned
        self.next_at = self._clock.monotonic() + min(1.0, self._lease / 5)
        return count

    def leave(self) -> None:
        """Strike this process off; what it still leases comes back as it was."""
        if self.worker:
            self._store.leave(self.worker)
            self.worker = 0


class UpkeepThread(threading.Thread):
    """Sweeps, and calls those who registered for upkeep, while its worker leads; on connections of its own.

    Args:
        store: what is swept.
        caretaker: tells whether its worker leads.
    """

    def __init__(self, store: Store, caretaker: Caretaker) -> None:
        super().__init__(name="soc_tasks-upkeep", daemon=True)
        self._store = store
        self._caretaker = caretaker
        self._ended = threading.Event()

    def run(self) -> None:
        """Do the upkeep every few seconds."""
        try:
            while not self._ended.wait(UPKEEP):
                if self._caretaker.leads:
                    do_upkeep(self._store)
                    connections.close_all()
        finally:
            connections.close_all()

    def end(self) -> None:
        """End the thread, without waiting for the round that it is in."""
        self._ended.set()


def do_upkeep(store: Store) -> None:
    """Sweep, and call those who registered for upkeep; what fails is tried again with the next round."""
    try:
        store.sweep(retention=get_settings().retention_days * _DAY)
    except Error as error:
        logger.warning("the sweep of old tasks failed and is tried again: %s", error)
    except Exception:
        logger.exception("the sweep of old tasks failed and is tried again")
    hooks.run_upkeep()
