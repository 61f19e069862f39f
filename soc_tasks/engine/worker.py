"""The worker: claims due tasks, hands them to its threads, writes down what came of them.

One turn:
1. collect the answers of the threads, and decide what becomes of each task (verdicts.py);
2. write the verdicts and claim what is due, in one transaction (store/);
3. hand the new tasks to the threads (pool.py).

The engine thread makes turns when a thread answers, somebody enqueues, a task is due, or it is time to look. Where it
would be woken for nothing else, the thread that answered makes the turn itself, on the engine thread's connection: two
changes of threads cost more than a task that does nothing. What needs more than a turn stays the engine thread's:
upkeep, telling others of a failure, trouble, the end.

No more is claimed than runs within some 50 ms. An answer that cannot be written is kept until it can.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cached_property
from typing import Final, TypeVar

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.engine.attempts import Dispatch
from soc_tasks.engine.caretaker import Caretaker, UpkeepThread
from soc_tasks.engine.clock import Clock
from soc_tasks.engine.dispatchers import make_dispatcher
from soc_tasks.engine.emptiness import Emptiness
from soc_tasks.engine.ending import NO_LIMITS, Ending, Limits, Recycling
from soc_tasks.engine.hands import Hands
from soc_tasks.engine.keeping import Lent
from soc_tasks.engine.pace import MOST_CLAIMED, Pace
from soc_tasks.engine.pool import Pool
from soc_tasks.engine.pulse import Pulse
from soc_tasks.engine.rest import POLL, WATCH, Rest
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.base import Store
from soc_tasks.engine.suspects import Suspects
from soc_tasks.engine.wakeup import Bell

logger = logging.getLogger("soc_tasks.engine")

Told = TypeVar("Told")

#: Seconds for which an answer waits for others at most.
GATHER: Final = 0.005
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
            threads,
            dispatch or make_dispatcher(),
            self._clock,
            self._ring,
            self._stop.is_set,
            self.store.options,
            self._take_turn,
        )
        self._pace = Pace(self._pool, window)
        self._caretaker = Caretaker(self.store, self._clock)
        self._hands = Hands(self.store, self._queues, self._pool, self._pace, self._caretaker, self._recycling)
        #: Strikes off a process that was entered by `join` and does not run.
        self.leave = self._caretaker.leave
        self._emptiness = Emptiness(self.store, self._clock, self._queues, tell)
        self._suspects = Suspects(self.store, self._clock, self._queues)
        self._watch_at = self._pause = self._retry_at = 0.0
        self._winding_up = False
        #: Held by whoever makes a turn.
        self._turn_lock = threading.Lock()
        #: What turns are made on; None: they are not lent. And what ended one that was.
        self._lent: Lent | None = None
        self._broken: BaseException | None = None

    @property
    def settled(self) -> int:
        """Return how many attempts were settled; what was claimed and given back is none."""
        return self._hands.settled

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
            self._rest = Rest(self._bell, self.store, self._hands, self._caretaker, self._room, self._ask)
            self.pulse.ready = True
            if self._ready is not None:
                self._ready()
            self._lent = Lent(self.alias)
            while self._go_on():
                self._sleep()
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

    def _go_on(self) -> bool:
        """Make a turn of the engine thread, unless it is all over; tell whether it was not."""
        with self._turn_lock:
            if self._broken is not None:
                raise self._broken
            if self._is_over():
                return False
            now = time.monotonic()
            self._collect(now)
            self.ending.look(now)
            if now >= self._retry_at:
                try:
                    with self.pulse:
                        self._work(now)
                except Error as error:
                    self._note_trouble(error)
                else:
                    self._pause = 0.0
            self._set_going()
        return True

    def _take_turn(self) -> None:
        """Make a turn in a thread that has answered, or have the engine thread make one."""
        lent = self._lent
        if lent is None or not self._turn_lock.acquire(blocking=False):
            self._ring()
            return
        try:
            with lent:
                if not self._turn_here():
                    self._ring()
        except BaseException as error:
            self._broken = error
            self._ring()
        finally:
            self._turn_lock.release()

    def _turn_here(self) -> bool:
        """Make a turn that no more than writes and claims; tell whether the engine thread may sleep on."""
        now = time.monotonic()
        if self._lent is None or self._stop.is_set() or self._pause or self._caretaker.is_needed:
            return False
        self._hands.collect(now)
        if self._caretaker.holds or self._suspects.is_needed or self._hands.tells:
            return False
        room = self._room(now)
        try:
            with self.pulse:
                self._exchange(room)
        except Error as error:
            self._note_trouble(error)
            return False
        # What remains is to wait for what others enqueue: the engine thread's, unless there are answers to come.
        return self._set_going() or self._room(self._hands.turned_at) == 0

    def _work(self, now: float) -> None:
        """Do what needs the database."""
        hands = self._hands
        if self._pause:
            hands.release_unknown()
        if self._caretaker.care():
            self._suspects.look_soon()
        if self._caretaker.holds:
            return
        if self._suspects.alone and hands.verdicts:
            # The one that ran alone has answered; the next one may go at once.
            self._exchange(0)
        if not self._stop.is_set() and (
            suspect := self._suspects.take(self._caretaker.worker, idle=hands.empty, leads=self._caretaker.leads)
        ):
            hands.launch([suspect])
        room = self._room(now)
        if hands.verdicts or (room and hands.look):
            self._exchange(room)

    def _exchange(self, room: int) -> None:
        if self._hands.exchange(room):
            self._emptiness.upkept = False
        elif room:
            self._bell.found_nothing()

    def _room(self, now: float) -> int:
        """Return how many tasks may be claimed now."""
        if self._stop.is_set() or self._suspects.making_room or self._caretaker.holds:
            return 0
        return self._hands.room(now)

    def _collect(self, now: float) -> None:
        """Turn answers into verdicts, and give up attempts that are past their deadline."""
        hands = self._hands
        hands.collect(now)
        if hands.under_way and now >= self._watch_at:
            self._watch_at = now + WATCH
            if abandoned := self._pool.abandon(now):
                hands.judge(abandoned)
                self.ending.leave_behind(abandoned[0].leased.queue, abandoned[0].leased.name)
            if self._pace.is_stalled(now):
                hands.give_back()

    def _set_going(self) -> bool:
        """Have the threads work; tell whether their tasks take no time, so that answers are gathered."""
        pool, flying = self._pool, len(self._hands.under_way)
        now = self._hands.turned_at = time.monotonic()
        if not (flying and self._pace.is_quick(now)):
            pool.mark = 1
            pool.wake(flying)
            return False
        # The engine thread makes its turn while the threads go on with the other half.
        pool.mark = max(1, flying // 2)
        pool.wake(self._pace.count_helpers(now))
        return True

    # Between turns.

    def _sleep(self) -> None:
        now = time.monotonic()
        if self._retry_at > now:
            self._bell.wait(min(self._retry_at - now, POLL), hear=False)
        elif self._hands.under_way and self._pace.is_quick(now):
            # A thread that runs out of work makes a turn by itself.
            while not self._bell.wait(GATHER, hear=False):
                if time.monotonic() >= min(now + WATCH, self._hands.turned_at + GATHER):
                    return
        else:
            self._rest.doze(now)

    def _ask(self, question: Callable[[], Told]) -> Told | None:
        """Ask the database between two turns; None: it was not to be had."""
        with self._turn_lock:
            try:
                return question()
            except Error as error:
                self._note_trouble(error)
                return None

    # The end, and trouble.

    def _is_over(self) -> bool:
        if self._stop.is_set():
            if not self._winding_up:
                self._winding_up = True
                self._hands.give_back()
            return self.ending.is_over(idle=self._hands.empty, in_trouble=self._pause > 0)
        if not self._until_empty or self._hands.look or not self._hands.empty:
            return False
        upkept = self._emptiness.upkept
        try:
            reached = self._emptiness.is_reached(time.monotonic())
        except Error as error:
            self._note_trouble(error)
            return False
        # Upkeep may have brought something.
        self._hands.look = self._emptiness.upkept and not upkept
        return reached

    def _note_trouble(self, error: Error) -> None:
        """Wait a little, and a little longer each time; nothing is lost meanwhile."""
        if not self._pause:
            logger.warning("the database %s is not to be had, trying again: %s", self.alias, error)
        self._pause = min(LONGEST_PAUSE, 2 * self._pause or FIRST_PAUSE)
        self._retry_at = time.monotonic() + self._pause
        self._hands.look = True
        self._pool.doubt()
        with suppress(Error):
            connections[self.alias].close()

    def _settle_rest(self) -> None:
        if self._hands.verdicts:
            self._exchange(0)

    def _close(self) -> None:
        """Hand everything back."""
        with self._turn_lock:
            lent, self._lent = self._lent, None
        if lent is not None:
            lent.end()
        if flying := len(self._hands.under_way):
            self.cut_off = True
            logger.warning("%d tasks did not end in time and will run again", flying)
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
