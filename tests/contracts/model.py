"""A queue of plain dictionaries: once more what a store does, without SQL, threads or speed.

It says what is right, and the machine (machine.py) holds a store to it after every step. How fast a queue goes is in
buckets.py.
"""

from __future__ import annotations

import copy
import math
from collections import Counter

from soc_tasks.engine.clock import SECOND, FakeClock, from_micros, to_micros
from soc_tasks.engine.records import QueueRecord
from soc_tasks.engine.verdicts import TIMED_OUT, Outcome, Verdict
from soc_tasks.values import QueueOptions
from tests.contracts.buckets import Bucket
from tests.contracts.item import Item

#: Seconds after which a task is tried again whose end could not be told; and how often one may end its process.
UNTOLD, MOST_CRASHES = 60, 3


class TakenError(Exception):
    """A name is taken."""


class Model:
    """Queues, tasks, names and workers.

    Args:
        clock: tells the time.
        options: the queues' options by name, one for each queue.
        keep_names: seconds for which a chosen name stays taken after its task's end.
    """

    def __init__(self, clock: FakeClock, options: dict[str, QueueOptions], keep_names: float) -> None:
        self.clock, self.options, self.keep_names = clock, options, keep_names
        self.items: dict[tuple[str, str], Item] = {}
        #: When names are free again.
        self.ended: dict[tuple[str, str], int] = {}
        self.paused: set[str] = set()
        self.purged: dict[str, int] = {}
        #: Their last heartbeats, and how many there were.
        self.workers: dict[int, tuple[int, int]] = {}
        self.buckets = {name: Bucket(given) for name, given in options.items()}
        self.progress: Counter[tuple[str, str]] = Counter()
        #: What was told of tasks that were given up; whether whoever is told fails.
        self.told: list[tuple[str, str, int, int]] = []
        self.deaf = False
        self._count = 0

    # Names.

    def save(self):
        return copy.deepcopy((self.items, self.ended))

    def restore(self, saved):
        self.items, self.ended = saved

    def is_taken(self, key):
        return key in self.items or self.ended.get(key, 0) > self.clock.now()

    def accept(self, tasks):
        count = len(self.items)
        for task in tasks:
            if not self.is_taken((task.queue, task.name)):
                self._count += 1
                now = self.clock.now()
                item = Item(task, self._count, now if task.eta is None else max(now, to_micros(task.eta)))
                self.items[item.key] = item
                self.ended.pop(item.key, None)
        return len(self.items) - count

    def add(self, tasks):
        keys = [(task.queue, task.name) for task in tasks]
        if len(set(keys)) < len(keys) or any(self.is_taken(key) for key in keys):
            raise TakenError
        self.accept(tasks)

    def end(self, item):
        del self.items[item.key]
        if item.task.named:
            self.ended[item.key] = self.clock.now() + round(self.keep_names * SECOND)

    def exhaust(self, item, attempts, status, *, cleared):
        """Give a task up, if whoever is told takes it; one that did not answer stays what it was."""
        if not self.deaf:
            self.told.append((*item.key, attempts, status))
            self.end(item)
            return
        suspect = (item.alone or item.state == "suspect") and not cleared
        item.state, item.owner, item.alone = "suspect" if suspect else "waiting", None, False
        item.due, item.asked = self.clock.now() + UNTOLD * SECOND, None

    # Workers.

    def settle(self, worker, verdict: Verdict):
        if verdict.is_overload:
            self.buckets[verdict.leased.queue].press(self.clock.now(), self.clock.monotonic())
        item = self.items.get((verdict.leased.queue, verdict.leased.name))
        if item is None or item.owner != worker:
            return
        if verdict.outcome is Outcome.DONE:
            self.end(item)
        elif verdict.outcome is Outcome.EXHAUSTED:
            self.exhaust(item, verdict.attempts, verdict.status, cleared=verdict.status > 0)
        else:
            if verdict.outcome is Outcome.RETRY:
                item.attempts += 1
                item.responses += verdict.status != TIMED_OUT
                item.first_attempt = item.first_attempt or verdict.first_attempt
                item.status, item.busy, item.crashes, item.unknown, item.alone = verdict.status, 0, 0, None, False
            elif verdict.outcome is Outcome.BUSY:
                item.busy, item.unknown = item.busy + 1, None
            elif verdict.outcome is Outcome.UNKNOWN:
                item.unknown = item.unknown or self.clock.now()
            if verdict.outcome is not Outcome.RETURNED:
                item.due, item.asked = verdict.due, None
            item.give_back()

    def held_by(self, worker):
        return [item for item in self.items.values() if item.owner == worker]

    def leave(self, worker):
        for item in self.held_by(worker):
            item.give_back()
        self.workers.pop(worker, None)

    def crash(self, worker):
        held = self.held_by(worker)
        del self.workers[worker]
        for item in held:
            crashes = 0
            if item.alone:
                crashes = 0 if item.progress != str(self.progress[item.key]) else item.crashes + 1
            if crashes >= MOST_CRASHES:
                self.exhaust(item, item.attempts, 0, cleared=False)
                continue
            item.crashes = crashes if item.alone else item.crashes
            item.state, item.owner, item.alone = "suspect", None, False
        return len(held)

    def shift_clock(self, by):
        """The clock was set: what was due is due, what waits for so long waits no longer and no less."""
        before = self.clock.now() - by
        for item in self.items.values():
            tried = item.attempts or item.busy or item.unknown is not None
            moves = tried if item.due > before else by < 0
            if moves and item.asked is None:
                item.due += by
            item.first_attempt = item.first_attempt and item.first_attempt + by
            item.unknown = item.unknown and item.unknown + by
        for bucket in self.buckets.values():
            bucket.shift_clock(by)

    # What may go.

    def count_running(self, queue):
        return sum(item.state == "running" and item.task.queue == queue for item in self.items.values())

    def is_full(self, queue):
        together = self.options[queue].rate_max_concurrent
        return together is not None and self.count_running(queue) >= together

    def due_in(self, queue, state="waiting"):
        """What of a queue is due, pause aside: in order."""
        now = self.clock.now()
        items = [item for item in self.items.values() if item.task.queue == queue and item.state == state]
        return sorted(
            (item for item in items if item.asked is not None or item.due <= now), key=lambda item: item.order
        )

    def room(self, queue):
        """How many tasks that nobody asked for may go now: at least, at most."""
        if queue in self.paused:
            return 0, 0
        together = self.options[queue].rate_max_concurrent
        free = math.inf if together is None else max(0, together - self.count_running(queue))
        low, high = self.buckets[queue].room(self.clock.now())
        return min(low, free), min(high, free)

    def suspects(self, queues):
        """What may be claimed to run alone: in order."""
        found = [item for queue in queues for item in self.due_in(queue, "suspect")]
        held = {queue for queue in queues if queue in self.paused or self.is_full(queue)}
        return sorted(
            (item for item in found if item.asked is not None or item.task.queue not in held),
            key=lambda item: item.order,
        )

    def next_due(self, queues):
        """When something may be claimed next: at the earliest, at the latest; None: not before something changes."""
        now, moments = self.clock.now(), []
        for queue in queues:
            waiting = [item for item in self.items.values() if item.key[0] == queue and item.state == "waiting"]
            if any(item.asked is not None for item in waiting):
                return now, now
            if waiting and queue not in self.paused and not self.is_full(queue):
                due = max(now, min(item.due for item in waiting))
                moments.append([max(due, moment) for moment in self.buckets[queue].next_moment(now)])
        return (min(low for low, _ in moments), min(high for _, high in moments)) if moments else None

    # What is seen of it.

    def waits_again(self, item):
        """Whether it was tried, and waits for the next time."""
        return item.state != "running" and item.unknown is None and bool(item.attempts or item.busy)

    def is_empty(self, queues):
        now = self.clock.now()
        for item in self.items.values():
            if item.task.queue not in queues:
                continue
            held = item.task.queue in self.paused
            waits = item.due <= now or self.waits_again(item) or (item.state == "suspect" and item.unknown is None)
            if item.state == "running" or item.asked is not None or (waits and not held):
                return False
        return True

    def retries(self, queues):
        now = self.clock.now()
        due = [
            item.due
            for item in self.items.values()
            if item.key[0] in queues - self.paused and self.waits_again(item) and item.asked is None and item.due > now
        ]
        return len(due), min(due, default=0)

    def expired(self, retention):
        """What is older than that, from when it was created or first to run."""
        oldest = self.clock.now() - round(retention * SECOND)
        return [
            item
            for item in self.items.values()
            if item.state != "running" and max(to_micros(item.task.created), item.first_attempt or item.since) < oldest
        ]

    def list_tasks(self, queue=None):
        order = ["running", "suspect", "waiting"]
        items = [item for item in self.items.values() if queue is None or item.task.queue == queue]
        return sorted(items, key=lambda item: (order.index(item.state), item.order))

    def queue_record(self, queue):
        states = Counter(item.state for item in self.items.values() if item.task.queue == queue)
        due = [*self.due_in(queue), *self.due_in(queue, "suspect")]
        return QueueRecord(
            name=queue,
            paused=queue in self.paused,
            due=len(due),
            scheduled=states["waiting"] + states["suspect"] - len(due),
            running=states["running"],
            oldest=from_micros(min(item.since for item in due)) if due else None,
            purged=from_micros(self.purged[queue]) if queue in self.purged else None,
        )
