"""Random histories of a queue: each step is done to a store and to the model, and all that can be read is compared.

The store is held to no more than its contract (store/base.py): which of several right answers it gives is its own.
"""

from __future__ import annotations

import itertools

from django.db import connections
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from soc_tasks.conf import get_queues, get_settings
from soc_tasks.engine.clock import SECOND, FakeClock
from soc_tasks.engine.store.rows import QUEUES, TASKS, WORKERS
from soc_tasks.engine.verdicts import Outcome, Verdict, judge, put_off
from soc_tasks.values import QueueOptions
from tests.contracts.adding import Adding
from tests.contracts.chances import DAY, NAMES, answers, moves, numbers, queues, subsets, tasks
from tests.contracts.claims import Claims
from tests.contracts.model import Model
from tests.contracts.reads import Reads


class Machine(Adding, Claims, Reads):
    """One history.

    Args:
        store: an empty store.
        hooks: a function that has the two hooks of the engine called: of exhausted tasks, and of progress.
    """

    def __init__(self, store, hooks) -> None:
        super().__init__()
        self.store, self.clock = store, FakeClock()
        store.clock, store._swept = self.clock, 0
        configured = get_queues()
        options = {name: configured.get(name, QueueOptions(name=name)) for name in NAMES}
        self.model = Model(self.clock, options, get_settings().tombstone_seconds)
        self.told = []
        #: What each worker remembers to hold, dead ones included; workers as they were last seen.
        self.memory, self.seen = {}, {}
        hooks(self.note_end, lambda task: str(self.model.progress[(task.queue, task.name)]))

    def teardown(self):
        with connections[self.store.alias].cursor() as cursor:
            for table in (TASKS, QUEUES, WORKERS):
                cursor.execute(f"DELETE FROM {table}")

    def note_end(self, task, attempts, status):
        if self.model.deaf:
            raise ValueError("no place for dead letters")
        self.told.append((task.queue, task.name, attempts, status))

    # Workers.

    @initialize(count=st.integers(1, 3), given=st.lists(tasks, min_size=1, max_size=9), queue=queues)
    def begin(self, count, given, queue):
        for _ in range(count):
            self.join(1)
        self.accept(given, ())
        self.add((), queue, 14)

    @precondition(lambda self: self.memory)
    @rule(what=st.sampled_from(("join", "beat", "crash", "leave", "release_unknown")), number=numbers)
    def come_and_go(self, what, number):
        getattr(self, what)(number)

    def join(self, number):
        worker = self.store.join("here" if number % 2 else "there", 7, 1)
        assert worker not in self.memory
        self.model.workers[worker] = (self.clock.now(), 0)
        self.memory[worker] = {}
        self.look()

    def pick(self, number):
        """One that lives; now and then any."""
        workers = sorted(self.memory if number % 8 == 0 or not self.model.workers else self.model.workers)
        return workers[number // 8 % len(workers)]

    def pick_living(self, number):
        workers = sorted(self.model.workers)
        return workers[number % len(workers)]

    def late(self):
        """Workers that were struck off while they ran something."""
        return [worker for worker, memory in self.memory.items() if memory and worker not in self.model.workers]

    def look(self):
        self.seen.update({record.id: record for record in self.store.list_workers()})

    def beat(self, number):
        worker = self.pick(number)
        alive = worker in self.model.workers
        assert self.store.beat(worker) == alive
        if alive:
            self.model.workers[worker] = (self.clock.now(), self.model.workers[worker][1] + 1)

    def crash(self, number):
        """Another worker finds one dead, as it was when somebody last looked."""
        if number % 2:
            self.look()
        if number % 3 == 0:
            self.beat(number)
        self.reclaim(self.pick(number))

    @precondition(lambda self: any(item.owner for item in self.model.items.values()))
    @rule(number=numbers)
    def crash_over(self, number):
        """What runs ends its process: rather what runs alone."""
        running = sorted((not item.alone, item.owner) for item in self.model.items.values() if item.owner)
        self.look()
        self.reclaim(running[number % 4 % len(running)][1])

    def reclaim(self, worker):
        record = self.seen[worker]
        same = worker in self.model.workers and self.model.workers[worker][1] == record.beats
        assert self.store.reclaim(record, 1.0) == (self.model.crash(worker) if same else None)

    def leave(self, number):
        worker = self.pick(number)
        self.store.leave(worker)
        self.model.leave(worker)

    # Attempts.

    @precondition(lambda self: self.memory)
    @rule(
        number=numbers,
        given=st.lists(answers, min_size=1, max_size=6),
        took=st.sampled_from((0, 0.01, 5)),
        limit=st.sampled_from((20, 40, 5, 2, 1, 0)),
        among=subsets,
    )
    def exchange(self, number, given, took, limit, among):
        worker = self.pick(number)
        self.exchange_with(worker, self.verdicts(worker, given, took), limit, among)

    @precondition(lambda self: self.model.workers and self.tried())
    @rule(number=numbers, answer=answers)
    def try_again(self, number, answer):
        """Have something run at once that was tried before, and answer it."""
        item = self.tried()[number % len(self.tried())]
        self.ask_for(item)
        worker = self.pick_living(number)
        self.exchange_with(worker, [], 40, None)
        if item.key in self.memory[worker]:
            # As what it has held for the longest time.
            self.memory[worker] = {item.key: self.memory[worker].pop(item.key), **self.memory[worker]}
            self.exchange_with(
                worker, self.verdicts(worker, [answer, *["none yet"] * len(self.memory[worker])], 0), 0, None
            )

    def tried(self):
        """What waits again."""
        items = self.model.list_tasks()
        return [item for item in items if item.state == "waiting" and (item.attempts or item.busy or item.unknown)]

    @precondition(lambda self: self.late())
    @rule(number=numbers, answer=answers)
    def answer_late(self, number, answer):
        """Who was struck off changes nothing."""
        worker = self.late()[number % len(self.late())]
        self.exchange_with(worker, self.verdicts(worker, [answer], 0), 20, None)

    def verdicts(self, worker, given, took):
        now, memory, verdicts = self.clock.now(), self.memory[worker], []
        for key, answer in zip(list(memory), itertools.cycle(given), strict=False):
            if answer == "none yet":
                continue
            leased = memory.pop(key)
            if answer == "returned":
                verdicts.append(Verdict(leased, Outcome.RETURNED))
            elif answer == "put off":
                verdicts.append(put_off(leased, now))
            else:
                verdicts.append(judge(leased, answer, now - round(took * SECOND), now))
        return verdicts

    def exchange_with(self, worker, verdicts, limit, among):
        for verdict in verdicts:
            self.model.settle(worker, verdict)
        leased = self.store.exchange(worker, verdicts, limit, among)
        self.check_claim(worker, leased, limit, among)
        return leased

    @precondition(lambda self: self.model.workers)
    @rule(number=numbers, limit=st.sampled_from((20, 1)), among=subsets)
    def wait(self, number, limit, among):
        """Until something may be claimed: it can be claimed then."""
        worker = self.pick_living(number)
        self.exchange_with(worker, [], limit, among)
        for _ in range(3):
            due = self.store.next_due(among)
            if due is None:
                return
            # A bucket of the time before the clock was set back fills when that time has come again, or is dated back
            # by the first look at its queue.
            dated = any(bucket.is_ahead(self.clock.now()) for bucket in self.model.buckets.values())
            self.clock.advance(max(0, due - self.clock.now()) / SECOND)
            if self.exchange_with(worker, [], limit, among):
                return
            assert dated
        raise AssertionError("nothing can be claimed when something should be due")

    @precondition(lambda self: self.model.suspects(NAMES))
    @rule(number=numbers, among=subsets)
    def claim_suspect(self, number, among):
        self.claim_suspect_as(self.pick(number), among)

    def claim_suspect_as(self, worker, among):
        suspects = self.model.suspects(NAMES if among is None else among)
        leased = self.store.claim_suspect(worker, among)
        if worker not in self.model.workers or not suspects:
            assert leased is None
            return
        assert (leased.queue, leased.name) == suspects[0].key
        self.check_lease(worker, leased, alone=True)

    @precondition(lambda self: self.model.suspects(NAMES))
    @rule(end=st.sampled_from(("crash", "crash", "get further and crash")) | answers)
    def run_alone(self, end):
        self.join(1)
        worker = max(self.model.workers)
        self.claim_suspect_as(worker, None)
        if not isinstance(end, str):
            self.exchange_with(worker, self.verdicts(worker, [end], 0), 0, None)
        elif "crash" in end:
            self.model.progress[self.model.held_by(worker)[0].key] += "further" in end
            self.reclaim(worker)

    def release_unknown(self, number):
        """A commit whose answer was lost: what came of it is not known."""
        worker = self.pick(number)
        memory = self.memory[worker]
        for key in list(memory)[: number % 4]:
            del memory[key]
        lost = [item for item in self.model.held_by(worker) if item.key not in memory]
        assert self.store.release_unknown(worker, {leased.id for leased in memory.values()}) == len(lost)
        for item in lost:
            item.give_back()

    # What people do.

    def some_key(self, number):
        """The key of a task that lives, or once of one that does not."""
        keys = [item.key for item in self.model.list_tasks()]
        return keys[number % len(keys)] if keys and number else (NAMES[0], "never")

    @rule(what=st.sampled_from(("run_now", "run_now", "delete")), number=numbers)
    def act_on_a_task(self, what, number):
        getattr(self, what)(number)

    @rule(what=st.sampled_from(("pause", "resume", "resume", "purge")), number=numbers)
    def act_on_a_queue(self, what, number):
        queue, _ = self.some_key(number)
        if what == "purge":
            self.purge(queue)
        else:
            self.set_paused(queue, what == "pause")

    def set_paused(self, queue, paused):
        self.store.set_paused(queue, paused)
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    def run_now(self, number):
        key = self.some_key(number)
        item = self.model.items.get(key)
        if item is not None and item.state != "running":
            self.ask_for(item)
        else:
            assert not self.store.run_now(*key)

    def ask_for(self, item):
        assert self.store.run_now(*item.key)
        item.asked = self.clock.now()

    def delete(self, number):
        key = self.some_key(number)
        item = self.model.items.get(key)
        assert self.store.delete(*key) == (item is not None)
        if item is not None:
            self.model.end(item)

    def purge(self, queue):
        items = [item for item in self.model.items.values() if item.task.queue == queue]
        assert self.store.purge(queue) == len(items)
        self.model.purged[queue] = self.clock.now()
        for item in items:
            self.model.end(item)

    # Time.

    @rule(
        seconds=moves, number=numbers, given=st.lists(answers, max_size=5), limit=st.sampled_from((20, 40, 20, 3, 1, 0))
    )
    def advance(self, seconds, number, given, limit):
        """By so many seconds, or until something is due; a worker answers, and goes on."""
        if seconds is None:
            due = self.store.next_due()
            seconds = 0 if due is None else max(0, due - self.clock.now()) / SECOND
        self.clock.advance(seconds)
        if self.model.workers:
            worker = self.pick_living(number)
            self.exchange_with(worker, self.verdicts(worker, given, 0), limit, None)

    @rule(seconds=st.sampled_from((-7200, -30, -0.5, 30, 7200, DAY)), notices=st.booleans())
    def set_clock(self, seconds, notices):
        """Notices: the worker that looks after that."""
        # What runs is written back as its worker knows it, times of the old clock included.
        running = [item for item in self.model.items.values() if item.owner]
        if notices and not any(item.first_attempt or item.unknown for item in running):
            self.shift_clock(seconds)
        else:
            self.set_back(abs(seconds))

    def set_back(self, seconds):
        # A name that is free stays free: it might be taken again, and either would be right.
        self.sweep_all(1000 * DAY)
        self.clock.set_back(seconds)
        for bucket in self.model.buckets.values():
            bucket.set_back()

    def shift_clock(self, seconds):
        self.sweep_all(1000 * DAY)
        newest = self.store.find_newest()
        self.clock.set_back(-seconds)
        self.store.shift_clock(round(seconds * SECOND), newest)
        self.model.shift_clock(round(seconds * SECOND))

    @rule(days=st.sampled_from((0.02, 1, 14)), limit=st.sampled_from((None, None, 1, 3)), deaf=st.booleans())
    def sweep(self, days, limit, deaf):
        """Deaf: whoever is told of tasks that were given up does not take it, until the next sweep."""
        self.model.deaf = deaf
        if deaf or limit is None:
            self.sweep_all(days * DAY)
        else:
            self.sweep_some(days * DAY, limit)

    def sweep_all(self, retention):
        model, now = self.model, self.clock.now()
        free = [key for key, until in model.ended.items() if until <= now]
        expired = model.expired(retention)
        # One that begins where the last one ended, and one that begins at the beginning.
        count = sum(self.store.sweep(retention=retention, limit=5000) for _ in range(2))
        assert 0 <= count - (0 if model.deaf else len(expired)) <= len(free)
        for key in free:
            del model.ended[key]
        for item in expired:
            model.exhaust(item, item.attempts, -1, cleared=False)
        with connections[self.store.alias].cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {TASKS}")
            assert cursor.fetchone()[0] == len(model.items) + len(model.ended)

    def sweep_some(self, retention, limit):
        """Of what is too old, whatever comes first."""
        model, told = self.model, len(self.told)
        expired = {item.key: item for item in model.expired(retention)}
        assert self.store.sweep(retention=retention, limit=limit) <= 2 * limit
        for queue, name, attempts, status in self.told[told:]:
            item = expired.pop((queue, name))
            assert (attempts, status) == (item.attempts, -1)
            model.exhaust(item, attempts, status, cleared=False)
