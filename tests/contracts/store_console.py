"""The contract of a store: what people and commands see and do, and the sweep."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.errors import TaskAlreadyExistsError
from tests.engine.tasks import done, judged, make_task, names

DAY = 86400


class ConsoleContract:
    """What is told, changed, deleted and forgotten."""

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

    def test_suspects_are_counted_by_when_they_are_due(self, store, clock, worker):
        store.add([make_task(), make_task(), make_task(queue="other")])
        store.exchange(worker, [], 9)
        store.reclaim(store.list_workers()[0], 1.0)
        fresh = store.join("here", 2, 2)
        busy = judged(clock, store.claim_suspect(fresh), 500, outcome="busy")
        store.exchange(fresh, [busy], 0)
        default, other = store.list_queues()
        assert (default.due, default.scheduled, other.due, other.scheduled) == (1, 1, 1, 0)
        assert default.oldest == other.oldest == from_micros(clock.now())

    def test_what_is_to_run_at_once_has_been_due_since_that_was_asked_for(self, store, clock):
        store.add([make_task(name="ahead", eta=from_micros(clock.now() + 60 * SECOND))])
        clock.advance(7)
        store.run_now("default", "ahead")
        assert store.list_queues()[0].oldest == from_micros(clock.now())
        assert store.get_task("default", "ahead").due == from_micros(clock.now())

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

    def test_purge_keeps_what_comes_while_it_works(self, store, monkeypatch):
        """Also a task of a machine whose clock is behind: its key is below those that are purged."""
        store.add([make_task() for _ in range(3)])
        start_id = f"{1:017x}{7:015x}"
        late = make_task(name=start_id, start_id=start_id, named=False)
        remove = store._remove

        def add_first(*arguments):
            store.accept([late])
            return remove(*arguments)

        monkeypatch.setattr(store, "_remove", add_first)
        assert store.purge("default") == 3
        assert names(store.list_tasks()) == [late.name]

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

    def test_what_is_scheduled_far_ahead_hides_nothing_from_the_sweep(self, store, clock, told):
        created = from_micros(clock.now())
        ahead = [make_task(eta=created + timedelta(days=30)) for _ in range(12)]
        store.add([dataclasses.replace(task, created=created) for task in ahead])
        store.add([dataclasses.replace(make_task(name=name), created=created) for name in ("old", "older")])
        clock.advance(9 * DAY)
        store.add([dataclasses.replace(make_task(), created=from_micros(clock.now())) for _ in range(20)])
        # Each looks at the next five rows. Where all are young it begins anew.
        sweeps = [(store.sweep(retention=DAY, limit=5), store.is_amid_sweep) for _ in range(8)]
        assert [count for count, _ in sweeps] == [0, 0, 2, 0, 0, 0, 0, 0]
        assert [amid for _, amid in sweeps][:4] == [True, True, True, False]
        assert [task.name for task, _, _ in told] == ["old", "older"]
        clock.advance(2 * DAY)
        # The two names are free again, and the twenty are old.
        assert sum(store.sweep(retention=DAY, limit=5) for _ in range(9)) == 22
        assert len(told) == 22

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

    def test_what_was_just_asked_for_is_not_too_old(self, store, clock, told):
        created = from_micros(clock.now())
        task = make_task(name="ahead", eta=created + timedelta(days=30))
        store.add([dataclasses.replace(task, created=created)])
        clock.advance(20 * DAY)
        assert store.run_now("default", "ahead")
        assert store.sweep(retention=14 * DAY) == 0
        assert told == []
