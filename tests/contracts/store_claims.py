"""The contract of a store: claims, verdicts, and many workers that claim at one time."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connections

from soc_tasks.engine import hooks
from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.engine.verdicts import TIMED_OUT
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.values import RetryOptions
from tests.engine.tasks import done, judged, make_task, names, returned


class ClaimsContract:
    """Who gets which task, and what becomes of it."""

    # Claims.

    def test_claims_are_by_due_time_and_only_what_is_due(self, store, clock, worker):
        later, soon = (
            make_task(eta=from_micros(clock.now() + 20 * SECOND)),
            make_task(eta=from_micros(clock.now() + 10 * SECOND)),
        )
        now = make_task()
        store.add([later, soon, now])
        assert names(store.exchange(worker, [], 10)) == [now.name]
        assert store.next_due() == clock.now() + 10 * SECOND
        clock.advance(30)
        assert names(store.exchange(worker, [], 10)) == [soon.name, later.name]
        assert store.next_due() is None

    def test_a_past_eta_does_not_jump_the_queue(self, store, clock, worker):
        first = make_task()
        store.add([first])
        clock.advance(1)
        store.add([make_task(name="past", eta=from_micros(clock.now()) - timedelta(days=9))])
        assert names(store.exchange(worker, [], 2)) == [first.name, "past"]

    def test_a_claimed_task_is_not_claimed_again(self, store, worker):
        store.add([make_task() for _ in range(5)])
        other = store.join("here", 2, 2)
        first, second = store.exchange(worker, [], 3), store.exchange(other, [], 10)
        assert len(first) == 3
        assert len(second) == 2
        assert not set(names(first)) & set(names(second))

    def test_queues_take_turns(self, store, worker):
        store.add([make_task(queue="a") for _ in range(10)])
        store.add([make_task(queue="b", name="b1"), make_task(queue="b", name="b2")])
        claimed = store.exchange(worker, [], 6)
        assert [task.queue for task in claimed].count("b") == 2
        assert len(claimed) == 6

    def test_of_each_queue_no_more_are_claimed_than_are_asked_for(self, store, worker):
        store.add([make_task(queue=queue) for queue in "aaaabb"])
        assert sorted(task.queue for task in store.exchange(worker, [], 9, each=1)) == ["a", "b"]
        assert sorted(task.queue for task in store.exchange(worker, [], 9, each=2)) == ["a", "a", "b"]
        assert [task.queue for task in store.exchange(worker, [], 9, {"b"}, each=2)] == []
        assert [task.queue for task in store.exchange(worker, [], 9)] == ["a"]

    def test_a_worker_may_be_limited_to_queues(self, store, worker):
        store.add([make_task(queue="a"), make_task(queue="b")])
        assert [task.queue for task in store.exchange(worker, [], 9, {"b"})] == ["b"]
        assert store.next_due({"b"}) is None
        assert not store.is_empty({"a"})
        assert store.is_empty({"c"})

    def test_one_exchange_writes_verdicts_and_claims(self, store, worker):
        store.add([make_task(name="one"), make_task(name="two")])
        first = store.exchange(worker, [], 1)
        second = store.exchange(worker, done(*first), 1)
        assert names(second) == ["two"]
        assert names(store.list_tasks()) == ["two"]

    # Verdicts.

    def test_a_failed_task_waits_and_remembers(self, store, clock, worker):
        store.add([make_task(retry=RetryOptions(min_backoff=10, max_backoff=300, max_doublings=3))])
        (leased,) = store.exchange(worker, [], 1)
        started = clock.now()
        assert store.exchange(worker, [judged(clock, leased, 500)], 5) == []
        assert store.next_due() == started + 10 * SECOND
        clock.advance(10)
        (leased,) = store.exchange(worker, [], 5)
        assert (leased.attempts, leased.responses, leased.status, leased.first_attempt) == (1, 1, 500, started)
        store.exchange(worker, [judged(clock, leased, TIMED_OUT)], 0)
        (record,) = store.list_tasks()
        assert (record.attempts, record.responses, record.status, record.state) == (2, 1, TIMED_OUT, "waiting")
        assert record.due == from_micros(clock.now() + 20 * SECOND)

    def test_busy_counts_as_no_attempt(self, store, clock, worker):
        store.add([make_task(retry=RetryOptions(max_attempts=1))])
        for delay in (0.1, 0.2, 0.4, 0.7, 1.0, 1.0):
            (leased,) = store.exchange(worker, [], 1)
            store.exchange(worker, [judged(clock, leased, 500, outcome="busy")], 0)
            assert store.next_due() == clock.now() + delay * SECOND
            assert not store.is_empty()
            clock.advance(delay)
        assert store.list_tasks()[0].attempts == 0

    def test_the_last_failure_ends_a_task_and_is_told(self, store, clock, worker, told):
        task = make_task(name="chosen", retry=RetryOptions(max_attempts=1), body=b"kept")
        store.add([task])
        (leased,) = store.exchange(worker, [], 1)
        store.exchange(worker, [judged(clock, leased, 503)], 0)
        ((task_told, attempts, status),) = told
        assert (task_told.name, task_told.body, attempts, status) == ("chosen", b"kept", 1, 503)
        assert store.get_task("default", "chosen") is None
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="chosen")])

    def test_what_cannot_be_told_takes_nothing_along(self, store, clock, worker, monkeypatch, caplog):
        def fail(*_):
            raise ValueError("no place for dead letters")

        monkeypatch.setattr(hooks, "_exhausted", [fail])
        store.add([make_task(name="good"), make_task(name="bad", retry=RetryOptions(max_attempts=1))])
        good, bad = store.exchange(worker, [], 2)
        store.exchange(worker, [judged(clock, bad), *done(good)], 0)
        assert names(store.list_tasks()) == ["bad"]
        assert store.next_due() == clock.now() + 60 * SECOND
        assert "no place for dead letters" in caplog.text

    def test_returned_tasks_are_as_they_were(self, store, clock, worker):
        store.add([make_task(name="a"), make_task(name="b")])
        a, b = store.exchange(worker, [], 2)
        clock.advance(1)
        store.add([make_task(name="c")])
        store.exchange(worker, returned(b, a), 0)
        assert names(store.exchange(worker, [], 3)) == ["a", "b", "c"]

    def test_only_the_owner_settles(self, store, clock, worker, told):
        """A worker that was stopped for longer than its lease changes nothing that is in other hands now."""
        store.add([make_task(name=f"t{i}", named=i % 2 == 0, retry=RetryOptions(max_attempts=1)) for i in range(8)])
        late = store.exchange(worker, [], 8)
        (record,) = store.list_workers()
        assert store.reclaim(record, 1.0) == 8
        other = store.join("here", 2, 2)
        while store.claim_suspect(other):
            continue
        store.exchange(worker, [*done(*late[:2]), *returned(*late[2:4]), *(judged(clock, t) for t in late[4:])], 5)
        records = store.list_tasks()
        assert [record.state for record in records] == ["running"] * 8
        assert [record.attempts for record in records] == [0] * 8
        assert told == []

    # Threads.

    def in_threads(self, count, work):
        errors, barrier = [], threading.Barrier(count)

        def run(number):
            try:
                barrier.wait(10)
                work(number)
            except BaseException as error:
                errors.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []

    def test_workers_side_by_side_claim_each_task_once(self, store):
        store.add([make_task() for _ in range(400)])
        claimed = [[] for _ in range(4)]

        def work(number):
            worker = store.join("here", number, 1)
            verdicts = []
            while leased := store.exchange(worker, verdicts, 7):
                claimed[number] += names(leased)
                verdicts = done(*leased)

        self.in_threads(4, work)
        everything = [name for part in claimed for name in part]
        assert len(everything) == len(set(everything)) == 400
        assert store.list_tasks() == []

    def test_one_of_many_gets_a_name(self, store):
        outcomes = []

        def work(number):
            try:
                store.add([make_task(name="contended")])
                outcomes.append("added")
            except TaskAlreadyExistsError:
                outcomes.append("taken")

        self.in_threads(6, work)
        assert sorted(outcomes) == ["added"] + ["taken"] * 5
