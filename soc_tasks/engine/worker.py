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
from typing import Final

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.engine.attempts import Dispatch, Job
from soc_tasks.engine.caretaker import Caretaker, UpkeepThread, do_upkeep
from soc_tasks.engine.clock import SECOND, Clock, SystemClock
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.engine.pool import Pool
from soc_tasks.engine.store import get_store
from soc_tasks.engine.suspects import Suspects
from soc_tasks.engine.verdicts import Outcome, Verdict, judge
from soc_tasks.engine.wakeup import Bell

logger = logging.getLogger("soc_tasks.engine")

#: Most tasks that a process holds at one time.
MOST_CLAIMED: Final = 200
#: Seconds of work that are claimed ahead.
AHEAD: Final = 0.05
#: Seconds for which an answer waits for others at most.
GATHER: Final = 0.005
#: Tasks that take longer, in seconds, are answered for one by one.
SLOW: Final = 0.002
#: Seconds after which an idle worker looks by itself.
POLL: Final = 0.05
#: Seconds between looks for attempts past their deadline.
WATCH: Final = 0.1
#: Seconds without an answer after which tasks no longer count as fast, and without a free thread after which those
#: that were claimed ahead go back.
STALLED: Final = 0.1
#: Share of a processor below which the threads that run wait for something else, so that one more helps; and above
#: which they wait for each other, so that one less does. Judged over so many seconds.
IDLE, BUSY, LOOK_BACK = 0.5, 0.8, 0.02
#: Seconds between tries while the database is not to be had.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Worker:
    """Runs the tasks of one database in threads of this process.

    Args:
        alias: the database; None: the one of the settings.
        threads: how many tasks may run at one time.
        queues: the queues to work on; None: all.
        dispatch: makes the calls; None: in this process, by Django's WSGI handler.
        until_empty: whether to end when nothing is left to do.
        grace: seconds that running tasks get when the worker is stopped.
        ready: called once, when tasks are about to be claimed.
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
    ) -> None:
        self.alias = alias if alias is not None else get_settings().database
        self.store = get_store(self.alias)
        #: How many verdicts were written down.
        self.settled = 0
        self._queues = None if queues is None else frozenset(queues)
        self._threads = threads
        self._grace = grace
        self._until_empty = until_empty
        self._ready = ready
        self._stop = threading.Event()
        self._clock: Clock = SystemClock()
        self._bell = Bell(self.alias)
        self._pool = Pool(threads, dispatch or InProcessDispatcher(), self._clock, self._bell.ring, self._stop.is_set)
        self._caretaker = Caretaker(self.store, self._clock)
        self._suspects = Suspects(self.store, self._clock, self._queues)
        self._in_flight: set[Job] = set()
        self._verdicts: list[Verdict] = []
        #: Moving average of the seconds that a task takes.
        self._average = 0.01
        #: Whether to claim; and if there was too little to claim, when more is due (microseconds).
        self._look = True
        self._next: int | None = None
        self._mark: object = None
        #: How many threads take part in work that takes no time, and the processor time when that was judged.
        self._helpers = 1
        self._used = (0.0, 0.0)
        self._answered_at = self._watch_at = 0.0
        self._pause = self._retry_at = 0.0
        self._stopped_at: float | None = None
        self._ask_empty_at = 0.0
        self._upkept = False

    def stop(self) -> None:
        """Claim nothing more, and end when what runs has ended or the grace period is over; from any thread."""
        self._stop.set()
        self._bell.ring()

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
        self.store.prepare_connection()
        upkeep = UpkeepThread(self.store, self._caretaker)
        try:
            self._caretaker.join()
            self._pool.start()
            upkeep.start()
            if self._ready is not None:
                self._ready()
            while not self._is_over():
                self._turn()
        finally:
            upkeep.end()
            self._close()

    # A turn.

    def _turn(self) -> None:
        self._collect()
        now = time.monotonic()
        if now >= self._retry_at:
            try:
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
        if not self._stop.is_set():
            idle = not self._in_flight and not self._verdicts
            if suspect := self._suspects.take(self._caretaker.worker, idle=idle):
                self._launch([Job(suspect)])
        room = self._room(now)
        if self._verdicts or (room and self._look):
            self._exchange(room)

    def _exchange(self, room: int) -> None:
        leased = self.store.exchange(self._caretaker.worker, self._verdicts, room, self._queues, self._pool)
        self.settled += len(self._verdicts)
        self._verdicts = []
        if leased:
            self._upkept = False
            self._launch([Job(task) for task in leased])
        if room:
            self._look = len(leased) == room
            if not self._look:
                self._next = self.store.next_due(self._queues)

    def _launch(self, jobs: list[Job]) -> None:
        self._in_flight.update(jobs)
        self._pool.put(jobs)

    def _room(self, now: float) -> int:
        """Return how many tasks may be claimed now."""
        if self._stop.is_set() or self._suspects.making_room:
            return 0
        average = self._average
        if len(self._in_flight) >= self._threads:
            average = max(average, self._shortest_run(now))
        ahead = int(self._threads * AHEAD / max(average, 1e-6))
        return max(0, min(MOST_CLAIMED, max(self._threads, ahead)) - len(self._in_flight))

    def _shortest_run(self, now: float) -> float:
        """Return for how long all threads have been busy with what they run now; 0 if one is free."""
        running = self._pool.running()
        return now - max(job.began for job in running) if len(running) >= self._threads else 0.0

    # Answers.

    def _collect(self) -> None:
        """Turn answers into verdicts."""
        now = time.monotonic()
        if done := self._pool.collect():
            mean = sum(job.seconds for job in done) / len(done)
            self._average += (mean - self._average) * min(1.0, 0.1 * len(done))
            self._answered_at = now
            self._judge(done)
        if self._in_flight and now >= self._watch_at:
            self._watch_at = now + WATCH
            self._judge(self._pool.abandon(now))
            if self._pool.queued and self._shortest_run(now) > STALLED:
                # Tasks that were claimed ahead wait behind slow ones; another process may have a thread free.
                self._give_back(self._pool.take_back())

    def _judge(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            # An attempt that was abandoned may answer yet: it counts once.
            if job in self._in_flight and job.answer is not None:
                self._in_flight.discard(job)
                self._verdicts.append(judge(job.leased, job.answer, job.started, job.ended))

    def _give_back(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self._in_flight.discard(job)
            self._verdicts.append(Verdict(job.leased, Outcome.RETURNED))

    # Sleep.

    def _sleep(self) -> None:
        pool, flying, now = self._pool, len(self._in_flight), time.monotonic()
        if self._retry_at > now:
            self._bell.wait(min(self._retry_at - now, POLL), hear=False)
        elif flying and self._average < SLOW and now - self._answered_at < STALLED:
            # The threads ring when half of it is done, or nothing is left.
            pool.mark = max(1, flying // 2)
            pool.wake(self._count_helpers(now))
            self._bell.wait(GATHER, hear=False)
        else:
            pool.mark = 1
            pool.wake(flying)
            self._doze(flying, now)

    def _count_helpers(self, now: float) -> int:
        """Return how many threads do good: one more while the processor has nothing to do, one less while it has."""
        since, before = self._used
        if now - since >= LOOK_BACK:
            used = time.process_time()
            share = (used - before) / (now - since)
            if share > BUSY:
                self._helpers = max(1, self._helpers - 1)
            elif share < IDLE and self._pool.queued:
                self._helpers = min(self._threads, self._helpers + 1)
            self._used = (now, used)
        return self._helpers

    def _doze(self, flying: int, now: float) -> None:
        """Sleep until something happens."""
        room = self._room(now) > 0
        if room and self._look:
            return
        timeout = min(POLL if room else WATCH, self._caretaker.next_at - now)
        if room and self._next is not None:
            timeout = min(timeout, (self._next - self._clock.now()) / SECOND)
        if self._bell.wait(max(0.0, timeout), hear=room):
            self._look = True
        elif room:
            self._glance()

    def _glance(self) -> None:
        """See, cheaply, whether there is something to claim."""
        try:
            mark = self.store.read_change_mark()
            if mark is None or mark != self._mark:
                self._next = self.store.next_due(self._queues)
                self._mark = mark
        except Error as error:
            self._note_trouble(error)
        self._look = self._next is not None and self._next <= self._clock.now()

    # The end, and trouble.

    def _is_over(self) -> bool:
        if self._stop.is_set():
            now = time.monotonic()
            if self._stopped_at is None:
                self._stopped_at = now
                self._give_back(self._pool.take_back())
            idle = not self._in_flight and not self._verdicts
            return idle or now - self._stopped_at > self._grace
        if not self._until_empty or self._look or self._in_flight or self._verdicts:
            return False
        now = time.monotonic()
        if now < self._ask_empty_at:
            return False
        self._ask_empty_at = now + 2 * POLL
        try:
            if not self.store.is_empty(self._queues):
                return False
        except Error as error:
            self._note_trouble(error)
            return False
        if self._upkept:
            return True
        # What waits in an outbox is work as well.
        do_upkeep(self.store)
        self._upkept = self._look = True
        self._ask_empty_at = 0.0
        return False

    def _note_trouble(self, error: Error) -> None:
        """Wait a little, and a little longer each time; nothing is lost meanwhile."""
        if not self._pause:
            logger.warning("the database %s is not to be had, trying again: %s", self.alias, error)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._retry_at = time.monotonic() + self._pause
        self._look = True
        with suppress(Error):
            connections[self.alias].close()

    def _close(self) -> None:
        """Hand everything back."""
        if self._in_flight:
            logger.warning("%d tasks did not end in time and will run again", len(self._in_flight))
        try:
            if self._verdicts:
                self.store.exchange(self._caretaker.worker, self._verdicts, 0)
                self.settled += len(self._verdicts)
                self._verdicts = []
            self._caretaker.leave()
        except Error as error:
            logger.warning("could not hand the leases back (%s); they end by themselves", error)
        self._bell.close()
        self._pool.close(timeout=1.0)
        with suppress(Error):
            connections[self.alias].close()
