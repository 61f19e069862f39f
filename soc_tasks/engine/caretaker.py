"""A worker's duties beside its tasks: to show that it is alive, to see who is not, and regular upkeep."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.engine import hooks
from soc_tasks.engine.clock import SECOND, Clock
from soc_tasks.engine.jumps import ClockWatch
from soc_tasks.engine.processes import born, this_host
from soc_tasks.engine.reaper import Reaper
from soc_tasks.engine.store.base import Store
from soc_tasks.engine.store.checkpoints import keep_checkpoints
from soc_tasks.engine.tally import Tally
from soc_tasks.engine.verdicts import Outcome, Verdict

logger = logging.getLogger("soc_tasks.engine")

#: Seconds between two rounds of upkeep, and between two sweeps where the last one found nothing.
UPKEEP: Final = 5.0
SWEEP: Final = 60.0
#: Seconds that other workers leave the leader to see that the clock was set, and to move along what waits.
HOLD: Final = 2.0
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
        #: Since it joined; and the newest task, as of the last round of the leader.
        self._watch: ClockWatch | None = None
        self._newest = 0
        #: By how many microseconds the clock was set, until that is seen to.
        self._jump = 0
        self._hold_until = 0.0
        #: What came of this process's attempts.
        self.tally = Tally()
        #: The id under which this process leases tasks.
        self.worker = 0
        #: Whether this is the oldest worker: it alone does the upkeep. And whether there is no other.
        self.leads = False
        self.alone = True
        #: When `care` has something to do again.
        self.next_at = 0.0

    def join(self) -> None:
        """Enter this process."""
        self.worker = self._store.join(this_host(), os.getpid(), born(os.getpid()))
        self._beat_at = self._clock.monotonic() + self._lease / 3
        if self._watch is None:
            self._watch = ClockWatch(self._clock)

    @property
    def holds(self) -> bool:
        """Tell whether nothing should be claimed or settled: the clock was set, and the leader is to see to that."""
        return self._clock.monotonic() < self._hold_until

    @property
    def is_needed(self) -> bool:
        """Tell whether `care` has something to do."""
        return self._sees_jump() or self._clock.monotonic() >= self.next_at

    def care(self) -> int:
        """Beat and reap, as far as it is time; return how many tasks of dead workers came back."""
        if self._sees_jump():
            self._meet_jump()
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
        self.alone = len(records) <= 1
        if self.leads:
            self._newest = self._store.find_newest()
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

    def _sees_jump(self) -> bool:
        """Tell whether the clock was set."""
        if self._watch is not None:
            self._jump += self._watch.look()
        return self._jump != 0

    def _meet_jump(self) -> None:
        """Move along what waits, where this is the leader; the others leave it the time."""
        if self.leads:
            self._store.shift_clock(self._jump, self._newest)
            logger.warning(
                "the clock was set %s by %.0f s; what was due stays due, retries keep what is left of their delay, and "
                "what is scheduled for a moment keeps that",
                "back" if self._jump < 0 else "forward",
                abs(self._jump) / SECOND,
            )
        else:
            self._hold_until = self._clock.monotonic() + HOLD
        self._jump = 0

    def count(self, verdicts: Sequence[Verdict]) -> int:
        """Count verdicts that were written down; return how many of them were attempts."""
        self.tally.count(verdicts, self._clock.now())
        returned = Outcome.RETURNED
        return sum(verdict.outcome is not returned for verdict in verdicts)

    def leave(self) -> None:
        """Strike this process off; what it still leases comes back as it was."""
        self.tally.flush(self._store)
        if self.worker:
            self._store.leave(self.worker)
            self.worker = 0


class UpkeepThread(threading.Thread):
    """Hands over what its worker has counted; sweeps, and calls those who registered for upkeep, while that leads.

    On connections of its own.

    Args:
        store: what is swept.
        caretaker: tells whether its worker leads.
    """

    def __init__(self, store: Store, caretaker: Caretaker) -> None:
        super().__init__(name="soc_tasks-upkeep", daemon=True)
        self._store = store
        self._caretaker = caretaker
        self._ended = threading.Event()
        # Before any thread of this process has a connection.
        self._checkpoints = keep_checkpoints(store, lambda: caretaker.leads)

    def run(self) -> None:
        """Do the upkeep every few seconds."""
        if self._checkpoints is not None:
            self._checkpoints.start()
        try:
            well, sweep_at = True, 0.0
            while not self._ended.wait(UPKEEP):
                counted, leads = self._caretaker.tally.flush(self._store), self._caretaker.leads
                if leads:
                    now = time.monotonic()
                    # What lasts is told once.
                    more = do_upkeep(self._store, quiet=not well, sweeps=now >= sweep_at)
                    well = more is not None
                    if now >= sweep_at and more is False:
                        sweep_at = now + SWEEP
                if counted or leads:
                    connections.close_all()
        finally:
            connections.close_all()

    def end(self) -> None:
        """End the thread, without waiting for the round that it is in."""
        self._ended.set()
        if self._checkpoints is not None:
            self._checkpoints.end()


def do_upkeep(store: Store, *, quiet: bool = False, sweeps: bool = True) -> bool | None:
    """Sweep, and call those who registered for upkeep; what fails is tried again with the next round.

    Args:
        store: what is swept.
        quiet: whether not to tell that the database is not to be had.
        sweeps: whether it is time for a sweep.

    Returns:
        Whether to sweep in the next round again. None, and so again: the database did not do what it was asked; nobody
        was called then who would ask it as well.
    """
    more = False
    try:
        if sweeps:
            more = store.sweep(retention=get_settings().retention_days * _DAY) > 0 or store.is_amid_sweep
    except Error as error:
        if not quiet:
            logger.warning("the sweep of old tasks failed and is tried again: %s", error)
        return None
    except Exception:
        logger.exception("the sweep of old tasks failed and is tried again")
        more = True
    if store.upkeep:
        more = hooks.run_upkeep(sweeps=sweeps) or more
    return more
