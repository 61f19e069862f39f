"""What every store does: the same assertions on each kind of database.

A test module subclasses `StoreContract` and gives the fixture `store`: an empty store whose clock is `clock`.
"""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta

import pytest
from django.db import connections, transaction

from soc_tasks.engine import hooks
from soc_tasks.engine.clock import SECOND, FakeClock, from_micros
from soc_tasks.engine.store.rows import TASKS
from soc_tasks.engine.verdicts import TIMED_OUT
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.values import RetryOptions
from tests.engine.tasks import done, judged, make_task, names, returned, rolled_back

DAY = 86400


class StoreContract:
    """Assertions on `store`."""

    @pytest.fixture
    def clock(self):
        return FakeClock()

    @pytest.fixture
    def worker(self, store):
        return store.join("here", 1, 1)

    @pytest.fixture
    def told(self, monkeypatch):
        """What the hooks were told: (name, attempts, status)."""
        told = []
        monkeypatch.setattr(hooks, "_exhausted", [lambda task, attempts, status: told.append((task, attempts, status))])
        return told

    # Names and rows.

    def test_a_task_comes_back_as_it_was_given(self, store, clock, worker):
        task = make_task(
            "/prefix/count?a=1&b=%C3%A9",
            script_name="/prefix",
            body=bytes(range(256)),
            headers={"Content-Type": "text/plain", "X-Name": 'ü "quoted"'},
            eta=from_micros(clock.now() + 5 * SECOND),
            created=from_micros(clock.now() - SECOND),
            dispatch_deadline=15.5,
            retry=RetryOptions(max_attempts=3, min_backoff=0.5),
            service="a",
            version="b",
            instance="c",
            name="chosen",
        )
        store.add([task])
        assert store.get_task("default", "chosen").task == task
        clock.advance(5)
        (leased,) = store.exchange(worker, [], 10)
        assert leased.to_task() == task
        assert (leased.attempts, leased.responses, leased.first_attempt, leased.status) == (0, 0, None, None)

    def test_unset_options_stay_unset(self, store, worker):
        store.add([make_task()])
        task = store.exchange(worker, [], 1)[0].to_task()
        unset = (task.dispatch_deadline, task.retry, task.service, task.version, task.instance)
        assert unset == (None,) * 5
        assert task.named is False

    def test_a_name_is_taken_while_its_task_lives_and_a_day_longer(self, store, clock, worker):
        store.add([make_task(name="nightly")])
        with pytest.raises(TaskAlreadyExistsError, match="'nightly' in queue 'default'"):
            store.add([make_task(name="nightly")])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        assert store.get_task("default", "nightly") is None
        clock.advance(DAY - 1)
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="nightly")])
        clock.advance(1)
        store.add([make_task(name="nightly")])
        assert len(store.list_tasks()) == 1

    def test_a_name_that_nobody_chose_is_free_at_once(self, store, worker):
        task = make_task()
        store.add([task])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        store.add([task])
        assert names(store.list_tasks()) == [task.name]

    def test_names_differ_by_case_and_by_queue(self, store):
        store.add([make_task(name="Name"), make_task(name="name"), make_task(name="name", queue="other")])
        assert len(store.list_tasks()) == 3

    def test_all_or_none_are_added(self, store):
        store.add([make_task(name="two")])
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="one"), make_task(name="two"), make_task(name="three")])
        with pytest.raises(TaskAlreadyExistsError, match="twice"):
            store.add([make_task(name="same"), make_task(name="same")])
        assert names(store.list_tasks()) == ["two"]

    def test_a_taken_name_does_not_break_the_transaction_of_the_caller(self, store):
        store.add([make_task(name="taken")])
        with transaction.atomic(using=store.alias):
            store.add([make_task(name="before")])
            with pytest.raises(TaskAlreadyExistsError):
                store.add([make_task(name="taken")])
            with pytest.raises(TaskAlreadyExistsError):
                store.add([make_task(name="a"), make_task(name="taken")])
            store.add([make_task(name="after")])
        assert sorted(names(store.list_tasks())) == ["after", "before", "taken"]

    def test_more_tasks_than_one_statement_takes(self, store, worker):
        tasks = [make_task(body=b"x" * 10) for _ in range(1234)]
        store.add(tasks)
        assert len(store.list_tasks(limit=2000)) == 1234
        with pytest.raises(TaskAlreadyExistsError):
            store.add([*[make_task() for _ in range(700)], tasks[0]])
        assert len(store.list_tasks(limit=2000)) == 1234
        # All became due at once: in the order in which they were given.
        assert names(store.exchange(worker, [], 100)) == names(tasks[:100])

    def test_nothing_is_added_in_a_transaction_that_rolls_back(self, store):
        with rolled_back(using=store.alias):
            store.add([make_task()])
        assert store.list_tasks() == []

    def test_accept_takes_what_came_already_for_success(self, store, clock, worker):
        old, new = make_task(name="old"), make_task(name="new")
        store.add([old])
        assert store.accept([old, new]) == 1
        store.exchange(worker, done(*store.exchange(worker, [], 2)), 0)
        assert store.accept([old, new]) == 0
        assert store.list_tasks() == []
        clock.advance(DAY)
        assert store.accept([old]) == 1

    def test_find_taken(self, store, clock, worker):
        store.add([make_task(name="gone")])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        store.add([make_task(name="there"), make_task(name="there", queue="other")])
        asked = [make_task(name=name) for name in ("gone", "there", "free")]
        assert names(store.find_taken([*asked, make_task()])) == ["gone", "there"]
        clock.advance(DAY)
        assert names(store.find_taken(asked)) == ["there"]

    def test_options_of_a_newer_release_are_passed_over(self, store, worker):
        store.add([make_task(retry=RetryOptions(max_attempts=3))])
        (leased,) = store.exchange(worker, [], 1)
        newer = leased._replace(options='{"retry": {"max_attempts": 4, "jitter": true}, "region": "x"}')
        assert newer.to_task().retry == RetryOptions(max_attempts=4)

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

    # Workers.

    def test_a_worker_that_was_struck_off_learns_it_and_claims_nothing(self, store, worker):
        assert store.beat(worker)
        (record,) = store.list_workers()
        assert (record.id, record.host, record.pid, record.born, record.beats) == (worker, "here", 1, 1, 1)
        store.reclaim(record, 1.0)
        store.add([make_task()])
        assert not store.beat(worker)
        assert store.exchange(worker, [], 5) == []
        assert store.join("here", 1, 1) != worker

    def test_a_worker_that_has_beaten_since_is_not_reclaimed(self, store, worker):
        store.add([make_task()])
        store.exchange(worker, [], 1)
        (record,) = store.list_workers()
        store.beat(worker)
        assert store.reclaim(record, 1.0) is None
        assert store.list_tasks()[0].state == "running"

    def test_leaving_returns_what_is_held(self, store, worker):
        store.add([make_task(), make_task()])
        store.exchange(worker, [], 2)
        store.leave(worker)
        assert store.list_workers() == []
        assert [record.state for record in store.list_tasks()] == ["waiting", "waiting"]

    def test_what_a_worker_holds_unknowingly_is_returned(self, store, worker):
        store.add([make_task(name="known"), make_task(name="unknown")])
        known, _ = store.exchange(worker, [], 2)
        assert store.release_unknown(worker, {known.id}) == 1
        assert {record.task.name: record.state for record in store.list_tasks()} == {
            "known": "running",
            "unknown": "waiting",
        }

    # Suspects.

    def crash(self, store, worker):
        (record,) = [record for record in store.list_workers() if record.id == worker]
        return store.reclaim(record, 1.0)

    def test_tasks_of_a_dead_worker_come_back_uncounted_and_alone(self, store, clock, worker):
        store.add([make_task(name="a"), make_task(name="b")])
        store.exchange(worker, [], 2)
        assert self.crash(store, worker) == 2
        fresh = store.join("here", 2, 2)
        assert store.next_suspect() is not None
        assert store.exchange(fresh, [], 5) == []
        assert {record.state for record in store.list_tasks()} == {"suspect"}
        suspect = store.claim_suspect(fresh)
        assert (suspect.name, suspect.attempts, suspect.alone) == ("a", 0, True)
        store.exchange(fresh, [judged(clock, suspect)], 0)
        assert {record.task.name: record.state for record in store.list_tasks()} == {"a": "waiting", "b": "suspect"}

    def test_a_task_that_ends_its_process_alone_three_times_is_given_up(self, store, clock, worker, told):
        store.add([make_task(name="poison"), make_task(name="neighbour")])
        store.exchange(worker, [], 2)
        self.crash(store, worker)
        for _ in range(3):
            fresh = store.join("here", 2, 2)
            assert told == []
            assert store.claim_suspect(fresh).name == "poison"
            self.crash(store, fresh)
        assert [(task.name, attempts, status) for task, attempts, status in told] == [("poison", 0, 0)]
        assert names(store.list_tasks()) == ["neighbour"]

    def test_a_suspect_that_answers_is_cleared(self, store, clock, worker, told):
        store.add([make_task()])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        for _ in range(2):
            fresh = store.join("here", 2, 2)
            store.claim_suspect(fresh)
            self.crash(store, fresh)
        fresh = store.join("here", 3, 3)
        suspect = store.claim_suspect(fresh)
        assert suspect.crashes == 2
        store.exchange(fresh, [judged(clock, suspect, 500)], 0)
        (record,) = store.list_tasks()
        assert (record.state, record.crashes, record.attempts) == ("waiting", 0, 1)

    def test_a_suspect_that_finds_its_shard_taken_stays_one(self, store, clock, worker, told):
        """A dead process held the lease: "busy" clears nobody, and the suspect is given up in the end."""
        store.add([make_task(name="poison")])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        store.add([make_task(name="neighbour")])
        for crashes in range(3):
            fresh = store.join("here", 2, 2)
            suspect = store.claim_suspect(fresh)
            assert (suspect.name, suspect.crashes, suspect.busy) == ("poison", crashes, crashes)
            store.exchange(fresh, [judged(clock, suspect, 500, outcome="busy")], 0)
            record = store.get_task("default", "poison")
            assert (record.state, record.crashes, record.attempts) == ("suspect", crashes, 0)
            assert record.due == from_micros(clock.now()) + timedelta(seconds=(0.1, 0.2, 0.4)[crashes])
            assert store.claim_suspect(fresh) is None
            clock.advance(1)
            # Never among others.
            others = store.exchange(fresh, [], 5)
            assert names(others) == ["neighbour"]
            store.exchange(fresh, returned(*others), 0)
            assert told == []
            assert store.claim_suspect(fresh).name == "poison"
            self.crash(store, fresh)
        assert [(task.name, attempts, status) for task, attempts, status in told] == [("poison", 0, 0)]
        assert [(record.task.name, record.state) for record in store.list_tasks()] == [("neighbour", "waiting")]

    def test_a_suspect_that_got_further_is_not_blamed(self, store, worker, told, monkeypatch):
        cursor = iter(range(100))
        monkeypatch.setattr(hooks, "_progress", [lambda task: str(next(cursor))])
        store.add([make_task()])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        for _ in range(6):
            fresh = store.join("here", 2, 2)
            assert store.claim_suspect(fresh) is not None
            self.crash(store, fresh)
        assert told == []
        assert store.list_tasks()[0].crashes == 0

    def test_a_suspect_handed_back_stays_one_without_blame(self, store, worker):
        store.add([make_task()])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        fresh = store.join("here", 2, 2)
        store.exchange(fresh, returned(store.claim_suspect(fresh)), 0)
        assert [(record.state, record.crashes) for record in store.list_tasks()] == [("suspect", 0)]
        store.claim_suspect(fresh)
        store.leave(fresh)
        assert [(record.state, record.crashes) for record in store.list_tasks()] == [("suspect", 0)]

    def test_suspects_of_a_paused_queue_wait(self, store, worker):
        store.add([make_task(name="held")])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        store.set_paused("default", True)
        fresh = store.join("here", 2, 2)
        assert store.next_suspect() is None
        assert store.claim_suspect(fresh) is None
        assert store.run_now("default", "held")
        assert store.claim_suspect(fresh).name == "held"

    # Pause, rates.

    def test_a_paused_queue_keeps_its_tasks_and_takes_new_ones(self, store, worker):
        store.set_paused("default", True)
        store.add([make_task(name="held"), make_task(name="free", queue="other")])
        assert names(store.exchange(worker, [], 9)) == ["free"]
        assert store.next_due() is None
        store.set_paused("default", False)
        assert store.next_due() is not None
        assert names(store.exchange(worker, [], 9)) == ["held"]

    def test_run_now_goes_past_pause_and_schedule(self, store, clock, worker):
        store.set_paused("default", True)
        store.add([make_task(name="held"), make_task(name="later", eta=from_micros(clock.now() + 60 * SECOND))])
        assert store.run_now("default", "later")
        assert store.next_due() == 0
        (leased,) = store.exchange(worker, [], 9)
        assert leased.name == "later"
        assert not store.run_now("default", "later")
        assert not store.run_now("default", "never")
        store.exchange(worker, [judged(clock, leased)], 9)
        # A failure is scheduled from now on, and held by the pause again.
        assert store.next_due() is None

    def test_a_rate_is_a_bucket_that_holds_a_burst(self, store, clock, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "slow", "rate_per_second": 2}]
        store.add([make_task(queue="slow") for _ in range(20)])
        assert len(store.exchange(worker, [], 100)) == 10
        assert store.exchange(worker, [], 100) == []
        assert store.next_due() == clock.now() + SECOND // 2
        clock.advance(0.5)
        assert len(store.exchange(worker, [], 100)) == 1
        clock.advance(2)
        assert len(store.exchange(worker, [], 100)) == 4
        store.run_now("slow", store.list_tasks("slow", limit=99)[-1].task.name)
        assert len(store.exchange(worker, [], 100)) == 1

    def test_a_clock_set_back_neither_stops_nor_floods_a_rated_queue(self, store, clock, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "slow", "rate_per_second": 1}]
        store.add([make_task(queue="slow") for _ in range(12)])
        assert len(store.exchange(worker, [], 100)) == 10
        store.add([make_task(queue="slow") for _ in range(20)])
        clock.set_back(3600)
        # What was due an hour ahead of this clock: "at once" would go past the bucket.
        with store.writing() as cursor:
            cursor.execute(f"UPDATE {TASKS} SET due = %s", (clock.now(),))
        assert store.exchange(worker, [], 100) == []
        assert store.next_due() == clock.now() + SECOND
        clock.advance(3)
        assert len(store.exchange(worker, [], 100)) == 3
        clock.advance(3600)
        assert len(store.exchange(worker, [], 100)) == 10

    def test_no_more_run_at_one_time_than_the_queue_allows(self, store, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "narrow", "rate_max_concurrent": 2}]
        store.add([make_task(queue="narrow") for _ in range(5)])
        store.add([make_task()])
        first = store.exchange(worker, [], 100)
        assert [task.queue for task in first].count("narrow") == 2
        assert len(first) == 3
        other = store.join("here", 2, 2)
        assert store.exchange(other, [], 100) == []
        narrow = [task for task in first if task.queue == "narrow"]
        assert len(store.exchange(worker, done(narrow[0]), 100)) == 1

    # Console.

    def test_counts_of_queues(self, store, clock, worker):
        store.add([make_task(), make_task(), make_task(eta=from_micros(clock.now() + 60 * SECOND))])
        store.add([make_task(queue="other")])
        store.exchange(worker, [], 1, {"default"})
        store.set_paused("other", True)
        clock.advance(7)
        default, other = store.list_queues()
        assert (default.name, default.paused, default.due, default.scheduled, default.running) == (
            "default", False, 1, 1, 1,
        )  # fmt: skip
        assert default.oldest == from_micros(clock.now() - 7 * SECOND)
        assert (other.name, other.paused, other.due) == ("other", True, 1)

    def test_lists_leave_bodies_out_and_take_a_limit(self, store):
        store.add([make_task(body=b"body") for _ in range(5)])
        records = store.list_tasks(limit=3)
        assert [record.task.body for record in records] == [b""] * 3
        assert store.list_tasks("other") == []

    def test_delete_takes_a_task_from_under_its_worker(self, store, worker):
        store.add([make_task(name="a"), make_task()])
        running = store.exchange(worker, [], 1)
        assert store.delete("default", "a")
        assert not store.delete("default", "a")
        store.exchange(worker, done(*running), 0)
        assert len(store.list_tasks()) == 1
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="a")])

    def test_purge_empties_one_queue_and_keeps_the_names(self, store, clock, worker):
        store.add([make_task() for _ in range(30)])
        store.add([make_task(name="chosen"), make_task(queue="other")])
        store.exchange(worker, [], 5, {"default"})
        assert store.purge("default") == 31
        assert [record.task.queue for record in store.list_tasks()] == ["other"]
        assert store.list_queues()[0].purged == from_micros(clock.now())
        with pytest.raises(TaskAlreadyExistsError):
            store.add([make_task(name="chosen")])
        store.add([make_task()])
        assert len(store.list_tasks("default")) == 1

    def test_empty_is_when_nothing_is_due_running_or_to_be_retried(self, store, clock, worker):
        assert store.is_empty()
        store.add([make_task(eta=from_micros(clock.now() + 60 * SECOND))])
        assert store.is_empty()
        store.add([make_task()])
        assert not store.is_empty()
        (leased,) = store.exchange(worker, [], 1)
        assert not store.is_empty()
        store.exchange(worker, [judged(clock, leased)], 0)
        assert not store.is_empty()
        store.set_paused("default", True)
        assert store.is_empty()

    def test_what_waits_to_be_tried_again_is_counted(self, store, clock, worker):
        assert store.count_retries() == (0, 0)
        store.add([make_task(eta=from_micros(clock.now() + SECOND)), *[make_task() for _ in range(3)]])
        store.add([make_task(queue="other")])
        done_one, failed, busy, other = store.exchange(worker, [], 9)
        verdicts = [judged(clock, failed, 500, countdown=42), judged(clock, busy, 500, outcome="busy")]
        store.exchange(worker, [*done(done_one), *verdicts, judged(clock, other)], 0)
        assert store.count_retries({"default"}) == (2, clock.now() + SECOND // 10)
        assert store.count_retries() == (3, clock.now() + SECOND // 10)
        store.set_paused("other", True)
        assert store.count_retries() == (2, clock.now() + SECOND // 10)
        clock.advance(0.1)
        assert store.count_retries() == (1, clock.now() + round(41.9 * SECOND))

    def test_the_sweep_forgets_names_and_exhausts_what_is_too_old(self, store, clock, worker, told):
        store.add([make_task(name="done")])
        store.exchange(worker, done(*store.exchange(worker, [], 1)), 0)
        old = dataclasses.replace(make_task(name="old"), created=from_micros(clock.now()))
        store.add([old])
        assert store.sweep(retention=2 * DAY) == 0
        clock.advance(DAY)
        assert store.sweep(retention=2 * DAY) == 1
        clock.advance(DAY + 1)
        store.add([dataclasses.replace(make_task(name="young"), created=from_micros(clock.now()))])
        assert store.sweep(retention=2 * DAY) == 1
        assert [(task.name, attempts, status) for task, attempts, status in told] == [("old", 0, -1)]
        assert names(store.list_tasks()) == ["young"]

    def test_two_sweeps_at_one_time_tell_of_a_task_once(self, store, clock, told, monkeypatch):
        store.add([dataclasses.replace(make_task(name="old"), created=from_micros(clock.now()))])
        clock.advance(2 * DAY)
        exhaust = type(store)._exhaust

        def late(self, cursor, leased, *rest):
            monkeypatch.setattr(type(store), "_exhaust", exhaust)
            exhaust(self, cursor, leased, *rest)
            return exhaust(self, cursor, leased, *rest)

        monkeypatch.setattr(type(store), "_exhaust", late)
        assert store.sweep(retention=DAY) == 0
        assert len(told) == 1

    def test_what_is_scheduled_far_ahead_is_not_too_old_before_it_ran(self, store, clock, worker, told):
        created = from_micros(clock.now())
        eta = created + timedelta(days=30)
        store.add([dataclasses.replace(make_task(name="ahead", eta=eta), created=created)])
        clock.advance(31 * DAY)
        assert store.sweep(retention=14 * DAY) == 0
        # It has the whole time for its retries, and no more.
        store.exchange(worker, [judged(clock, *store.exchange(worker, [], 1), 500)], 0)
        clock.advance(14 * DAY - 1)
        assert store.sweep(retention=14 * DAY) == 0
        store.exchange(worker, [judged(clock, *store.exchange(worker, [], 1), 500)], 0)
        clock.advance(2)
        assert store.sweep(retention=14 * DAY) == 1
        assert [(task.name, attempts, status) for task, attempts, status in told] == [("ahead", 2, -1)]

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
