"""The threads that run tasks.

Work lies in one deque that all threads take from, so that no task waits behind a slow one while a thread is free. For
tasks that take no time, one thread is faster than many (they would only fight for the interpreter): the engine wakes
as many as do good. While it talks to the database it closes a gate, and threads wait between two tasks: each row that
SQLite steps over would otherwise cost it the interpreter for a whole switch interval.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from soc_tasks.engine.attempts import TIMED_OUT_NAME, Dispatch, Job, log_attempt, make_attempt
from soc_tasks.engine.clock import Clock
from soc_tasks.engine.cutoff import cut_off
from soc_tasks.engine.keeping import count_open, doubt, keep_connections, tidy
from soc_tasks.engine.verdicts import TIMED_OUT, Options
from soc_tasks.values import Answer

#: Seconds for which threads wait at a closed gate at most.
GATE: Final = 0.005


class _Seat:
    """A thread and what it runs."""

    __slots__ = ("call", "connections", "job", "thread", "written_off")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.call = threading.Lock()
        self.call.acquire()
        self.written_off = False
        self.thread: threading.Thread | None = None
        #: Django's, of this thread.
        self.connections: list[BaseDatabaseWrapper] = []


class Pool:
    """Runs jobs in threads.

    Args:
        size: how many threads.
        dispatch: makes the call; may raise.
        clock: for the times of attempts.
        ring: called when the engine thread is to collect what there is.
        answered: called by a thread that has answered and finds no job; there may be some after that. None: `ring`.
        stopping: tells views whether the worker wants to end.
        queues: tells the options of queues.
    """

    def __init__(
        self,
        size: int,
        dispatch: Dispatch,
        clock: Clock,
        ring: Callable[[], None],
        stopping: Callable[[], bool],
        queues: Callable[[], Options] = lambda: None,
        answered: Callable[[], None] | None = None,
    ) -> None:
        self.size = size
        self._dispatch = dispatch
        self._clock = clock
        self._ring = ring
        self._answered = ring if answered is None else answered
        self._stopping = stopping
        self._queues = queues
        self._jobs: deque[Job] = deque()
        self._done: deque[Job] = deque()
        self._idle: deque[_Seat] = deque()
        self._seats: list[_Seat] = []
        self._gate = threading.Lock()
        self._gate_closed = False
        self._closing = False
        self._wanted = size
        #: The bell rings when this many answers wait.
        self.mark = 1

    def start(self) -> None:
        """Start the threads."""
        for _ in range(self.size):
            self._start_one()

    def _start_one(self) -> None:
        seat = _Seat()
        self._seats.append(seat)
        seat.thread = threading.Thread(target=self._work, args=(seat,), name="soc_tasks-dispatch", daemon=True)
        seat.thread.start()

    # What the engine thread does.

    def put(self, jobs: Iterable[Job]) -> None:
        """Queue jobs; `wake` gets them going."""
        self._jobs.extend(jobs)

    def wake(self, count: int) -> None:
        """Have up to `count` threads work, as far as there are jobs for them; those beyond rest after their task."""
        self._wanted = count
        awake = len(self._seats) - len(self._idle)
        for _ in range(min(count - awake, len(self._jobs))):
            try:
                # The one that rested last: its memory is still warm.
                self._idle.pop().call.release()
            except IndexError:
                return

    def collect(self) -> list[Job]:
        """Return the jobs that were answered since the last call."""
        done = self._done
        return [done.popleft() for _ in range(len(done))]

    def take_back(self) -> list[Job]:
        """Return the jobs that no thread has started; none of them will start."""
        taken = []
        try:
            while True:
                taken.append(self._jobs.pop())
        except IndexError:
            return taken

    @property
    def queued(self) -> int:
        """Return how many jobs wait for a thread."""
        return len(self._jobs)

    def running(self) -> list[Job]:
        """Return the jobs that are being run."""
        return [job for seat in tuple(self._seats) if (job := seat.job) is not None]

    def abandon(self, now: float) -> list[Job]:
        """Write off the threads whose jobs are past their deadline; return those jobs, with an answer."""
        abandoned = []
        for seat in tuple(self._seats):
            job = seat.job
            if job is None or not 0 < job.deadline < now:
                continue
            seat.written_off = True
            self._seats.remove(seat)
            if job.answer is None:
                job.answer = answer = Answer(status=TIMED_OUT)
                job.ended = self._clock.now()
                job.seconds = now - job.began
                log_attempt(job, answer, TIMED_OUT_NAME)
            cut_off(seat.thread, seat.connections)
            abandoned.append(job)
            self._start_one()
        return abandoned

    def doubt(self) -> None:
        """Have the threads look whether their connections are good before they use them again."""
        for seat in tuple(self._seats):
            doubt(seat.connections)

    def __enter__(self) -> None:
        """Close the gate: threads wait between two tasks."""
        self._gate.acquire()
        self._gate_closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate_closed = False
        self._gate.release()

    def close(self, timeout: float) -> None:
        """End the threads that run nothing, and wait for them; the others end with the process."""
        self._closing = True
        for seat in tuple(self._seats):
            if seat.call.locked():
                seat.call.release()
        for seat in tuple(self._seats):
            if seat.thread is not None and seat.job is None:
                seat.thread.join(timeout)

    # What the threads do.

    def _work(self, seat: _Seat) -> None:
        seat.connections = keep_connections()
        jobs, done = self._jobs, self._done
        try:
            while not (self._closing or seat.written_off):
                # Not for long: the database may have the engine wait.
                if self._gate_closed and self._gate.acquire(timeout=GATE):
                    self._gate.release()
                if len(self._seats) - len(self._idle) > self._wanted or self._stopping():
                    self._rest(seat, always=True)
                    continue
                try:
                    job = jobs.popleft()
                except IndexError:
                    if done:
                        self._answered()
                    if not jobs:
                        self._rest(seat, always=False)
                    continue
                seat.job = job
                opened = count_open(seat.connections)
                make_attempt(job, self._dispatch, self._clock, self._stopping, self._queues())
                # At first: a connection may be slow to tell that it is broken, and its thread hangs until it does.
                done.append(job)
                if seat.written_off:
                    # Another thread sits here now. If the engine has answered for this one, that counts.
                    break
                self._tidy(seat, opened)
                seat.job = None
                if len(done) >= self.mark and jobs:
                    # The engine thread makes its turn while this one goes on.
                    self._ring()
        finally:
            connections.close_all()

    def _tidy(self, seat: _Seat, opened: int) -> None:
        """Put this thread's connections in order after a task, before which so many of them were open."""
        tidy()
        if count_open(seat.connections) < opened:
            # What broke one may have broken those of the other threads.
            self.doubt()

    def _rest(self, seat: _Seat, *, always: bool) -> None:
        """Sleep until the engine calls; unless `always`, only if there is no work."""
        self._idle.append(seat)
        # What came between the look at the deque and this line found nobody to wake.
        if self._jobs and not always:
            try:
                self._idle.remove(seat)
            except ValueError:
                # Woken in the meantime: the call is waiting.
                seat.call.acquire()
            return
        if self._done:
            self._ring()
        seat.call.acquire()
        # What was used in a turn that this thread was lent, by a log handler say, may have broken in the meantime.
        tidy()
