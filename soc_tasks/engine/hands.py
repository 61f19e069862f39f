"""What a worker has in its hands: tasks under way, verdicts that are yet to be written, and whether to claim more.

For one thread at a time: the engine thread, or the one that a turn is lent to (worker.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from django.db import Error

from soc_tasks.engine.attempts import Job
from soc_tasks.engine.caretaker import Caretaker
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.ending import Recycling
from soc_tasks.engine.pace import Pace
from soc_tasks.engine.pool import Pool
from soc_tasks.engine.store.base import Queues, Store
from soc_tasks.engine.store.rows import Leased
from soc_tasks.engine.verdicts import Outcome, Verdict, judge, put_off

logger = logging.getLogger("soc_tasks.engine")

#: Seconds after which a worker tries again to claim what is due and was not to be had; and for which it leaves what is
#: claimed one by one to other processes, which may be waking up.
CLAIM_AGAIN, LEFT_TO_OTHERS = 0.01, 0.003


class Hands:
    """Claims tasks, hands them to the threads, and writes down what came of them.

    Args:
        store: where the tasks are.
        queues: the queues that are meant; None: all.
        pool: the threads.
        pace: how fast they are.
        caretaker: knows under which id tasks are leased, and counts verdicts.
        recycling: counts attempts.
    """

    def __init__(
        self, store: Store, queues: Queues, pool: Pool, pace: Pace, caretaker: Caretaker, recycling: Recycling
    ) -> None:
        self._store = store
        self._queues = queues
        self._pool = pool
        self._pace = pace
        self._caretaker = caretaker
        self._recycling = recycling
        self.under_way: set[Job] = set()
        self.verdicts: list[Verdict] = []
        #: How many attempts were settled; what was claimed and given back is none.
        self.settled = 0
        #: When the last turn ended, whoever made it (monotonic).
        self.turned_at = 0.0
        #: Whether more may be had than was claimed.
        self.look = True
        #: When more is due (microseconds), as far as that was asked; and for how long nothing is claimed in any case.
        self._next: int | None = None
        self._asked = False
        self._pause = 0.0

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to run and nothing to write."""
        return not self.under_way and not self.verdicts

    def room(self, now: float) -> int:
        """Return how many tasks may be claimed, as far as the threads and the limits of the process go."""
        flying = len(self.under_way)
        return self._recycling.fit(self._pace.room(flying, now), flying)

    @property
    def tells(self) -> bool:
        """Tell whether a verdict is to be told to others as it is written: that a task has failed for good."""
        return any(verdict.outcome is Outcome.EXHAUSTED for verdict in self.verdicts)

    def launch(self, tasks: Iterable[Leased]) -> None:
        """Hand tasks to the threads; waking these is somebody else's."""
        jobs = [Job(task) for task in tasks]
        self.under_way.update(jobs)
        self._pool.put(jobs)

    # Answers.

    def collect(self, now: float) -> None:
        """Turn the answers of the threads into verdicts."""
        if done := self._pool.collect():
            self._pace.note(done, now)
            self.judge(done)

    def judge(self, jobs: Iterable[Job]) -> None:
        """Turn answers into verdicts."""
        options = self._store.options()
        for job in jobs:
            # An attempt that was abandoned may answer yet: it counts once.
            if job in self.under_way and job.answer is not None:
                self.under_way.discard(job)
                self._recycling.count()
                self.verdicts.append(judge(job.leased, job.answer, job.started, job.ended, options))

    def give_back(self) -> None:
        """Have what no thread has started go back."""
        for job in self._pool.take_back():
            self.under_way.discard(job)
            self.verdicts.append(Verdict(job.leased, Outcome.RETURNED))

    # What needs the database; each may raise its errors.

    def exchange(self, room: int) -> list[Leased]:
        """Write the verdicts, and claim and launch up to `room` tasks; return these."""
        each = None if self._caretaker.alone else self._pace.portion
        try:
            leased = self._store.exchange(self._caretaker.worker, self.verdicts, room, self._queues, self._pool, each)
        except Exception as error:
            if isinstance(error, Error) or not self.verdicts:
                raise
            self._settle_singly()
            return []
        self.settled += self._caretaker.count(self.verdicts)
        self.verdicts = []
        if leased:
            self.launch(leased)
        if room:
            # Where that is not known it is asked first what is left, which costs less than a claim in vain.
            self.look = each is None and len(leased) == room
            self._asked = False
            self._pause = CLAIM_AGAIN if not leased else LEFT_TO_OTHERS if each is not None else 0.0
        return leased

    def _settle_singly(self) -> None:
        """Write verdicts one by one: one of them cannot be written, and is not to keep the others from it."""
        while self.verdicts:
            leased = self.verdicts[0].leased
            try:
                self._store.exchange(self._caretaker.worker, self.verdicts[:1], 0)
            except Error:
                raise
            except Exception:
                logger.exception("what came of task %s of queue %s cannot be written", leased.name, leased.queue)
                late = put_off(leased, self._store.clock.now())
                self._store.exchange(self._caretaker.worker, [late], 0)
            self.settled += self._caretaker.count(self.verdicts[:1])
            del self.verdicts[0]

    def release_unknown(self) -> None:
        """Give back what a claim leased whose answer was lost on the way: nobody knows of it here."""
        known = {job.leased.id for job in self.under_way} | {verdict.leased.id for verdict in self.verdicts}
        self._store.release_unknown(self._caretaker.worker, known)

    def find_next(self) -> int | None:
        """Return when something may be claimed next, in microseconds: asked for once after each claim."""
        if not self._asked:
            self._next, self._asked = self._store.next_due(self._queues), True
            if self._pause and self._next is not None:
                # It was not to be had, for whatever reason, or is left to others for a moment.
                self._next = max(self._next, self._store.clock.now() + round(self._pause * SECOND))
            self._pause = 0.0
        return self._next

    def ask_again(self) -> None:
        """Have it asked anew when something is due."""
        self._asked = False
