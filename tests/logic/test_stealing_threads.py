"""Workers side by side on a lopsided division: on every database all rows once, one end, and nobody waits in vain."""

from __future__ import annotations

import queue
import threading
import time
from datetime import UTC, datetime
from functools import partial

import pytest
from django.db import connections, transaction
from django.db.models import F

from soc_tasks import Iteration
from soc_tasks.backends import get_backend
from soc_tasks.logic import stealing
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import start_run
from soc_tasks.logic.slices import run_slice
from soc_tasks.meta import Inherited, read_meta
from soc_tasks.models import ReceiptRow
from soc_tasks.state.base import ShardBusyError
from tests.databases import on_every_database
from tests.logic.schedules import RUN, lopsided

ROWS, SHARDS, BATCH = 160, 4, 4
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


class Crew:
    """Threads that deliver what is queued, when it is due, until the iteration has ended.

    Args:
        monkeypatch: to catch what is queued.
        alias: the database; its receipts are the entities.
        atomic: whether batches are.
        pause: how long a batch takes, in seconds.
    """

    def __init__(self, monkeypatch, alias, *, atomic, pause=0.01):
        self.rows = ReceiptRow.objects.using(alias)
        self.rows.bulk_create(ReceiptRow(start_id=f"{n:04}", created=MOMENT) for n in range(ROWS))
        self.queue, self.ends, self.errors, self.pause = queue.PriorityQueue(), [], [], pause
        self.count, self.over, self.most = 0, threading.Event(), time.monotonic() + 60
        self.under_way = set()
        # SQLite has one lock and no line before it: where batches are transactions, whoever had it gets it again, and
        # the others may never.
        self.takes_turns = atomic and connections[alias].vendor == "sqlite"
        monkeypatch.setattr(get_backend(), "submit", self.submit)
        monkeypatch.setattr(get_backend(), "shares_transaction", lambda using: True)
        self.plan = Plan(
            logic=ModelLogic(self.rows, batch_size=BATCH),
            atomic=atomic,
            shards=SHARDS,
            key_ranges_getter=lopsided,
            finalize=lambda: None,
        )
        start_run(
            start_id=RUN, name="run", path="/x", script_name="", plan=self.plan, context={},
            inherited=Inherited(queue="default"),
        )  # fmt: skip

    def submit(self, tasks, using=None):
        for task in tasks:
            due = time.monotonic() + (0 if task.eta is None else (task.eta - get_backend().now()).total_seconds())
            # With the transaction, as every queue of ours.
            transaction.on_commit(partial(self.put, read_meta(task).slice, due), using=self.rows.db)

    def put(self, message, due):
        self.count += 1
        self.queue.put((due, self.count, message))

    def process(self, entities, context):
        self.over.wait(self.pause)
        # As many as there are: a row that two have is counted twice.
        self.rows.filter(pk__in=[row.pk for row in entities]).update(created=F("created") + 1_000_000)

    def end(self, context):
        self.ends.append(1)
        self.over.set()

    def work(self):
        try:
            while not self.over.is_set() and time.monotonic() < self.most:
                self.deliver_one()
        except Exception as error:
            self.errors.append(error)
            self.over.set()
        finally:
            connections.close_all()

    def deliver_one(self):
        try:
            due, _, message = self.queue.get(timeout=0.05)
        except queue.Empty:
            return
        if due > time.monotonic():
            self.put(message, due)
            self.over.wait(0.005)
            return
        now = time.monotonic()
        budget = Budget(seconds=0 if self.takes_turns else 60, stopping=lambda: False, started=now, deadline=now + 60)
        delivery = object()
        self.under_way.add(delivery)
        try:
            run_slice(message, self.plan, self.process, budget, lambda error: False, self.end)
        except ShardBusyError:
            self.put(message, now + 0.02)
        finally:
            self.under_way.discard(delivery)
        if self.takes_turns:
            self.let_others_end()

    def let_others_end(self):
        """Wait for all deliveries that have begun."""
        for other in list(self.under_way):
            while other in self.under_way and time.monotonic() < self.most:
                if self.over.wait(0.002):
                    return

    def run(self, beside=lambda iteration: None):
        threads = [threading.Thread(target=self.work) for _ in range(SHARDS)]
        for thread in threads:
            thread.start()
        while not self.over.wait(0.03):
            if time.monotonic() > self.most:
                break
            beside(Iteration.get(RUN))
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return Iteration.get(RUN)


@pytest.fixture
def moves(monkeypatch):
    """Let shards steal however little is left; count how often they do, and how often they ask."""
    monkeypatch.setattr(stealing, "LEAST_SECONDS", 0)
    counts = {"_move": 0, "give_away": 0}
    for name in counts:
        monkeypatch.setattr(stealing, name, count(counts, name, getattr(stealing, name)))
    return counts


def count(counts, name, function):
    def counted(*args):
        counts[name] += 1
        return function(*args)

    return counted


def check(crew, iteration):
    assert (iteration.status, iteration.done, crew.ends) == ("succeeded", ROWS, [1])
    assert {shard.status for shard in iteration.shards} == {"done"}
    seconds = {(row.created - MOMENT).total_seconds() for row in crew.rows.all()}
    assert seconds == {1.0}


@on_every_database
@pytest.mark.parametrize("atomic", [False, True])
def test_a_slow_range_is_shared(monkeypatch, engine_database, moves, atomic):
    crew = Crew(monkeypatch, engine_database, atomic=atomic)
    iteration = crew.run()
    check(crew, iteration)
    done = [shard.done for shard in iteration.shards]
    assert moves["_move"] >= 1
    # How even depends on who gets a processor, and on SQLite its only lock; test_stealing.py has it without chance.
    assert max(done) < ROWS - SHARDS + 1


@on_every_database
@pytest.mark.parametrize("atomic", [False, True])
def test_with_pauses_and_limits_meanwhile(monkeypatch, engine_database, moves, atomic):
    steps = iter([2, "pause", "resume", 1, 3, "pause", "resume", None, 2, None])

    def steer(iteration):
        step = next(steps, None)
        if isinstance(step, str):
            getattr(iteration, step)()
        else:
            iteration.set_concurrency(step)

    crew = Crew(monkeypatch, engine_database, atomic=atomic)
    check(crew, crew.run(steer))
