"""The contract of a store: pause, rates, limits of tasks at one time."""

from __future__ import annotations

from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.engine.store.rows import TASKS
from tests.engine.tasks import done, judged, make_task, names


class QueuesContract:
    """What is held back, and until when."""

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
