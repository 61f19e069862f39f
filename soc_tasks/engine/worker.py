"""The worker: claims due tasks, hands them to its threads, writes down what came of them.

One turn of the engine thread:
1. collect the answers of the threads, and decide what becomes of each task (verdicts.py);
2. write the verdicts and claim what is due, in one transaction (store/);
3. hand the new tasks to the threads (pool.py);
4. sleep: 5 ms while tasks that take no time are under way, else until a thread answers, somebody enqueues, a task is
   due, or it is time to look.

No more is claimed than runs within some 50 ms. An answer that cannot be written is kept until it can.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import cached_property
from typing import Final

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.engine.attempts import Dispatch, Job
from soc_tasks.engine.caretaker import Caretaker, UpkeepThread
from soc_tasks.engine.clock import SECOND, Clock
from soc_tasks.engine.dispatchers import make_dispatcher
from soc_tasks.engine.emptiness import Emptiness
from soc_tasks.engine.ending import NO_LIMITS, Ending, Limits, Recycling
from soc_tasks.engine.pace import MOST_CLAIMED, Pace
from soc_tasks.engine.pool import Pool
from soc_tasks.engine.pulse import Pulse
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.base import Store
from soc_tasks.engine.suspects import Suspects
from soc_tasks.engine.verdicts import Outcome, Verdict, judge, put_off
from soc_tasks.engine.wakeup import Bell

logger = logging.getLogger("soc_tasks.engine")

#: Seconds for which an answer waits for others at most.
GATHER: Final = 0.005
#: Seconds after which an idle worker looks whether others committed: if datagrams wake it, and if none can.
POLL, QUICK_POLL = 0.1, 0.01
#: Seconds between looks for attempts past their deadline.
WATCH: Final = 0.1
#: Seconds between tries while the database is not to be had.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Worker:
    """Runs the tasks of one database in threads of this process.

    Args:
        alias: the database; None: the one of the settings.
        threads: how many tasks may run at one time.
        queues: the queues to work on; None: all.
        dispatch: makes the calls; None: as the settings say.
        until_empty: whether to end when nothing is left to do.
        grace: seconds that running tasks get when the worker is stopped.
        ready: called once, when tasks are about to be claimed.
        recycle: whether to end when an attempt was abandoned or a limit is reached: whoever started this process
            replaces it. Else the attempt's thread, which cannot be stopped, stays behind with what it holds.
        limits: after what to end so.
        window: how many tasks this process may hold at one time, which is how many a kill may have run again.
        tell: called with a line now and then, while only retries keep `until_empty` from ending.
        store: where the tasks are, if not in the store of `alias` that works for the site.
    """

    def __init__(
        self,
        alias: str | None = None,
        *,
        threads: int = 8,
        queues: Collection[str] | None = None,
        dispatch: Dispatch | None = None,
        until_empty: bool = False,
        grace: float = 25.0,
        ready: Callable[[], None] | None = None,
        recycle: bool = False,
        limits: Limits = NO_LIMITS,
        window: int = MOST_CLAIMED,
        tell: Callable[[str], None] | None = None,
        store: Store | None = None,
    ) -> None:
        self.alias = alias if alias is not None else get_settings().database
        self.store = get_store(self.alias) if store is None else store
        #: How many attempts were settled; what was claimed and given back is none.
        self.settled = 0
        self._queues = None if queues is None else frozenset(queues)
        self._until_empty = until_empty
        self._ready = ready
        self._recycling = Recycling(limits)
        self.ending = Ending(grace, recycle, self._recycling)
        self.pulse = Pulse()
        #: Whether it ended before its tasks did.
        self.cut_off = False
        self._stop = self.ending.begun
        self._clock: Clock = self.store.clock
        self._pool = Pool(
            threads, dispatch or make_dispatcher(), self._clock, self._ring, self._stop.is_set, self.store.options
        )
        self._pace = Pace(self._pool, window)
        self._caretaker = Caretaker(self.store, self._clock)
        #: Strikes off a process that was entered by `join` and does not run.
        self.leave = self._caretaker.leave
        self._emptiness = Emptiness(self.store, self._clock, self._queues, tell)
        self._suspects = Suspects(self.store, self._clock, self._queues)
        self._in_flight: set[Job] = set()
        self._verdicts: list[Verdict] = []
        #: Whether to claim; and if there was too little to claim, when more is due (microseconds).
        self._look = True
        self._next: int | None = None
        self._mark: object = None
        self._watch_at = self._pause = self._retry_at = 0.0
        self._winding_up = False

    def stop(self) -> None:
        """Claim nothing more, and end when what runs has ended or the grace period is over; from any thread."""
        self.ending.stop()
        self._ring()

    def run_until_empty(self) -> int:
        """Work in threads of their own until nothing is left to do; return how many attempts were settled."""
        self._until_empty = True
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self.run()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="soc_tasks-engine")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return self.settled

    def run(self) -> None:
        """Work until stopped, or until nothing is left; the calling thread becomes the engine thread."""
        upkeep = UpkeepThread(self.store, self._caretaker)
        try:
            self._join()
            self._pool.start()
            upkeep.start()
            # Before it is ready: whoever finds no bell does not look for one again within a second.
            _ = self._bell
            self.pulse.ready = True
            if self._ready is not None:
                self._ready()
            while not self._is_over():
                self._turn()
        finally:
            upkeep.end()
            self._close()

    def join(self) -> None:
        """Enter this process before it runs: for whoever must know first that it may."""
        self._caretaker.join()

    def _join(self) -> None:
        """Enter this process, as soon as the database lets it."""
        while not (self._stop.is_set() or self._caretaker.worker):
            try:
                self._caretaker.join()
                return
            except Error as error:
                self._note_trouble(error)
                self._stop.wait(self._pause)

    @cached_property
    def _bell(self) -> Bell:
        return Bell(self.alias, self.store.listen)

    def _ring(self) -> None:
        # Before it runs, a worker has no bell, and after that a closed one: it looks by itself.
        if "_bell" in self.__dict__:
            self._bell.ring()

    # A turn.

    def _turn(self) -> None:
        self._collect()
        now = time.monotonic()
        self.ending.look(now)
        if now >= self._retry_at:
            try:
                with self.pulse:
                    self._work(now)
            except Error as error:
                self._note_trouble(error)
            else:
                self._pause = 0.0
        self._sleep()

    def _work(self, now: float) -> None:
        """Do what needs the database."""
        if self._pause:
            # A claim whose answer was lost on the way left tasks in our name that we do not know of.
            known = {job.leased.id for job in self._in_flight} | {verdict.leased.id for verdict in self._verdicts}
            self.store.release_unknown(self._caretaker.worker, known)
        if self._caretaker.care():
            self._suspects.look_soon()
        if self._caretaker.holds:
            return
        if self._suspects.alone and self._verdicts:
            # The one that ran alone has answered; the next one may go at once.
            self._exchange(0)
        if not self._stop.is_set():
            idle = not self._in_flight and not self._verdicts
            if suspect := self._suspects.take(self._caretaker.worker, idle=idle, leads=self._caretaker.leads):
                self._launch([Job(suspect)])
        room = self._room(now)
        if self._verdicts or (room and self._look):
            self._exchange(room)

    def _exchange(self, room: int) -> None:
        try:
            leased = self.store.exchange(self._caretaker.worker, self._verdicts, room, self._queues, self._pool)
        except Exception as error:
            if isinstance(error, Error) or not self._verdicts:
                raise
            self._settle_singly()
            return
        self.settled += self._caretaker.count(self._verdicts)
        self._verdicts = []
        if leased:
            self._emptiness.upkept = False
            self._launch([Job(task) for task in leased])
        if room:
            if not leased:
                self._bell.found_nothing()
            self._look = len(leased) == room
            if not self._look:
                self._next = self.store.next_due(self._queues)
                if not leased and self._next is not None:
                    # Due and not to be had, for whatever reason: not asked for again and again.
                    self._next = max(self._next, self._clock.now() + round(QUICK_POLL * SECOND))

    def _settle_singly(self) -> None:
        """Write verdicts one by one: one of them cannot be written, and is not to keep the others from it."""
        while self._verdicts:
            leased = self._verdicts[0].leased
            try:
                self.store.exchange(self._caretaker.worker, self._verdicts[:1], 0)
            except Error:
                raise
            except Exception:
                logger.exception("what came of task %s of queue %s cannot be written", leased.name, leased.queue)
                self.store.exchange(self._caretaker.worker, [put_off(leased, self._clock.now())], 0)
            self.settled += self._caretaker.count(self._verdicts[:1])
            del self._verdicts[0]

    def _launch(self, jobs: list[Job]) -> None:
        self._in_flight.update(jobs)
        self._pool.put(jobs)

    def _room(self, now: float) -> int:
        """Return how many tasks may be claimed now."""
        if self._stop.is_set() or self._suspects.making_room or self._caretaker.holds:
            return 0
        flying = len(self._in_flight)
        return self._recycling.fit(self._pace.room(flying, now), flying)

    # Answers.

    def _collect(self) -> None:
        """Turn answers into verdicts."""
        now = time.monotonic()
        if done := self._pool.collect():
            self._pace.note(done, now)
            self._judge(done)
        if self._in_flight and now >= self._watch_at:
            self._watch_at = now + WATCH
            if abandoned := self._pool.abandon(now):
                self._judge(abandoned)
                self.ending.leave_behind(abandoned[0].leased.queue, abandoned[0].leased.name)
            if self._pace.is_stalled(now):
                self._give_back(self._pool.take_back())

    def _judge(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            # An attempt that was abandoned may answer yet: it counts once.
            if job in self._in_flight and job.answer is not None:
                self._in_flight.discard(job)
                self._recycling.count()
                self._verdicts.append(judge(job.leased, job.answer, job.started, job.ended, self.store.options()))

    def _give_back(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._in_flight.discard(job)
            self._verdicts.append(Verdict(job.leased, Outcome.RETURNED))

    def _sleep(self) -> None:
        pool, flying, now = self._pool, len(self._in_flight), time.monotonic()
        if self._retry_at > now:
            self._bell.wait(min(self._retry_at - now, POLL), hear=False)
        elif flying and self._pace.is_quick(now):
            # The threads ring when half of it is done, or nothing is left.
            pool.mark = max(1, flying // 2)
            pool.wake(self._pace.count_helpers(now))
            self._bell.wait(GATHER, hear=False)
        else:
            pool.mark = 1
            pool.wake(flying)
            self._doze(flying, now)

    def _doze(self, flying: int, now: float) -> None:
        """Sleep until something happens, or it is time for a turn."""
        room = self._room(now) > 0
        if room and self._look:
            return
        poll = QUICK_POLL if self._bell.slot is None else POLL
        until = self._caretaker.next_at
        if flying:
            until = min(until, now + WATCH)
        if room and self._next is not None:
            until = min(until, now + (self._next - self._clock.now()) / SECOND)
        while True:
            timeout = until - time.monotonic()
            if self._bell.wait(max(0.0, min(timeout, poll) if room else timeout), hear=room):
                self._look = True
                return
            changed = room and self._has_changed()
            if changed or timeout <= poll:
                self._look = self._next is not None and self._next <= self._clock.now()
                return

    def _has_changed(self) -> bool:
        """See, cheaply, whether others committed since the last look; then find out when something is due."""
        try:
            mark = self.store.read_change_mark()
            if mark is not None and mark == self._mark:
                return False
            self._next = self.store.next_due(self._queues)
            self._mark = mark
        except Error as error:
            self._note_trouble(error)
        return True

    # The end, and trouble.

    def _is_over(self) -> bool:
        if self._stop.is_set():
            if not self._winding_up:
                self._winding_up = True
                self._give_back(self._pool.take_back())
            return self.ending.is_over(idle=not self._in_flight and not self._verdicts, in_trouble=self._pause > 0)
        if not self._until_empty or self._look or self._in_flight or self._verdicts:
            return False
        upkept = self._emptiness.upkept
        try:
            reached = self._emptiness.is_reached(time.monotonic())
        except Error as error:
            self._note_trouble(error)
            return False
        # Upkeep may have brought something.
        self._look = self._emptiness.upkept and not upkept
        return reached

    def _note_trouble(self, error: Error) -> None:
        """Wait a little, and a little longer each time; nothing is lost meanwhile."""
        if not self._pause:
            logger.warning("the database %s is not to be had, trying again: %s", self.alias, error)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._retry_at = time.monotonic() + self._pause
        self._look = True
        self._pool.doubt()
        with suppress(Error):
            connections[self.alias].close()

    def _settle_rest(self) -> None:
        if self._verdicts:
            self._exchange(0)

    def _close(self) -> None:
        """Hand everything back."""
        if self._in_flight:
            self.cut_off = True
            logger.warning("%d tasks did not end in time and will run again", len(self._in_flight))
        # Whatever becomes of the verdicts, what is still leased goes back.
        for step in () if self.ending.hung and self._pause else (self._settle_rest, self._caretaker.leave):
            try:
                step()
            except Error as error:
                logger.warning("could not hand the leases back (%s); they end by themselves", error)
            except Exception:
                logger.exception("could not hand the leases back")
        logger.info("worker ended queues=%s attempts=%d", ",".join(sorted(self._queues or ["all"])), self.settled)
        self._bell.close()
        self._pool.close(timeout=1.0)
        # Upkeep at the end of all work looks for outboxes on every alias.
        for connection in connections.all(initialized_only=True):
            with suppress(Error):
                connection.close()
