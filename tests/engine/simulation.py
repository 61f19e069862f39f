"""Workers on a clock that jumps to the next moment: the real store, and tasks that only pretend to take time."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from typing import NamedTuple

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.verdicts import judge
from soc_tasks.values import Answer


class Start(NamedTuple):
    """One attempt that began, `at` seconds after the simulation."""

    at: float
    queue: str
    name: str
    attempt: int


class Simulation:
    """Runs what is in a store by virtual workers.

    Args:
        store: the store; its clock is a FakeClock.
        workers: how many workers.
        threads: how many tasks each runs at one time.
        play: called with a leased task and the seconds since the start, gives how many seconds it takes and its status,
            or a whole `Answer`.
    """

    def __init__(self, store, *, workers=1, threads=1000, play=lambda leased, at: (0.0, 200)):
        self.store, self.clock, self.play = store, store.clock, play
        self.threads = threads
        self.began = self.clock.now()
        self.workers = [store.join("here", number, 1) for number in range(workers)]
        self.starts: list[Start] = []
        #: How many tasks of a queue ran at one time at most.
        self.most = defaultdict(int)
        self._running = {worker: [] for worker in self.workers}
        self._script = []
        self._numbers = itertools.count()

    @property
    def now(self):
        """Seconds since the start."""
        return (self.clock.now() - self.began) / SECOND

    def at(self, seconds, call, *arguments, **named):
        """Have something called at a time."""
        moment = self.began + round(seconds * SECOND)
        heapq.heappush(self._script, (moment, next(self._numbers), lambda: call(*arguments, **named)))

    def run(self, until):
        """Let time pass up to so many seconds after the start."""
        end = self.began + round(until * SECOND)
        while True:
            while self._script and self._script[0][0] <= self.clock.now():
                heapq.heappop(self._script)[2]()
            self._work()
            moments = [heap[0][0] for heap in self._running.values() if heap]
            if any(len(heap) < self.threads for heap in self._running.values()):
                due = self.store.next_due()
                # What is said to be due can be had.
                assert due is None or due > self.clock.now()
                moments += [] if due is None else [due]
            moments += [self._script[0][0]] if self._script else []
            moment = min([*moments, end])
            if moment >= end and self.clock.now() == end:
                return
            self.clock.advance((moment - self.clock.now()) / SECOND)

    def _work(self):
        """Settle what has ended and claim what is due, until neither is to be had; each worker in its turn."""
        busy = True
        while busy:
            busy = False
            for worker in self.workers:
                heap, verdicts = self._running[worker], []
                while heap and heap[0][0] <= self.clock.now():
                    ended, _, leased, started, answer = heapq.heappop(heap)
                    verdicts.append(judge(leased, answer, started, ended))
                room = self.threads - len(heap)
                if not verdicts and not room:
                    continue
                leased = self.store.exchange(worker, verdicts, room)
                for task in leased:
                    self._start(worker, task)
                busy = busy or bool(leased)
            self.workers.append(self.workers.pop(0))

    def _start(self, worker, leased):
        now = self.clock.now()
        seconds, answer = self.play(leased, self.now)
        answer = answer if isinstance(answer, Answer) else Answer(status=answer)
        entry = (now + round(seconds * SECOND), next(self._numbers), leased, now, answer)
        heapq.heappush(self._running[worker], entry)
        self.starts.append(Start(self.now, leased.queue, leased.name, leased.attempts + 1))
        running = sum(entry[2].queue == leased.queue for heap in self._running.values() for entry in heap)
        self.most[leased.queue] = max(self.most[leased.queue], running)

    # What happened.

    def times(self, queue=None, name=None):
        """Return when attempts began."""
        return [
            start.at
            for start in self.starts
            if (queue is None or start.queue == queue) and (name is None or start.name == name)
        ]

    def count(self, queue, since, until):
        """Return how many attempts of a queue began in a stretch of time, its end included."""
        return sum(since < at <= until for at in self.times(queue))


def largest_burst(times, rate):
    """Return by how much the starts in any window exceed rate * its length, at most: what a bucket must have held."""
    level, last, highest = 0.0, None, 0.0
    for at in times:
        level = 1.0 + (0.0 if last is None else max(0.0, level - (at - last) * rate))
        last, highest = at, max(highest, level)
    return highest
