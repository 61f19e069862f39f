"""The contract of a store: somebody sets the clock while tasks wait, are tried again, and run."""

from __future__ import annotations

from datetime import timedelta

import pytest

from soc_tasks.engine.clock import SECOND, from_micros, to_micros
from soc_tasks.values import RetryOptions
from tests.engine.tasks import judged, make_task, names, returned

HOUR = 3600


class ClockContract:
    """What waits longer, or less, when the clock is set: nothing that it should not."""

    def set_clock(self, store, clock, seconds):
        """Set the clock, and have the leader see to it as it would."""
        newest = store.find_newest()
        clock.set_back(-seconds)
        store.shift_clock(seconds * SECOND, newest)

    def fail(self, store, clock, worker, name, delay, **options):
        """Have a task wait for its second attempt."""
        retry = RetryOptions(min_backoff=delay, max_backoff=delay, **options)
        store.add([make_task(name=name, retry=retry)])
        (leased,) = store.exchange(worker, [], 1)
        store.exchange(worker, [judged(clock, leased)], 0)

    def left(self, store, clock, name, queue="default"):
        """Return for how many seconds a task waits yet."""
        return (to_micros(store.get_task(queue, name).due) - clock.now()) / SECOND

    def test_the_newest_task_is_known_by_its_id(self, store):
        assert store.find_newest() == 0
        store.add([make_task()])
        first = store.find_newest()
        store.add([make_task()])
        assert 0 < first < store.find_newest()

    def test_set_back_what_was_due_stays_due_in_its_order(self, store, clock, worker):
        for number in range(4):
            # From an hour and a half ago to now: some were due by the new clock as well.
            store.add([make_task(name=f"t{number}"), make_task(name=f"u{number}", queue="other")])
            clock.advance(HOUR / 2)
        self.set_clock(store, clock, -HOUR)
        assert store.next_due() <= clock.now()
        leased = store.exchange(worker, [], 99)
        assert [name for name in names(leased) if name[0] == "t"] == [f"t{number}" for number in range(4)]
        assert [name for name in names(leased) if name[0] == "u"] == [f"u{number}" for number in range(4)]

    def test_set_back_what_is_scheduled_keeps_its_moment(self, store, clock, worker):
        moment = from_micros(clock.now() + 10 * SECOND)
        store.add([make_task(name="later", eta=moment)])
        self.set_clock(store, clock, -HOUR)
        assert store.get_task("default", "later").due == moment
        clock.advance(HOUR + 9)
        assert store.exchange(worker, [], 9) == []
        clock.advance(1)
        assert names(store.exchange(worker, [], 9)) == ["later"]

    def test_set_back_a_moment_that_had_come_is_not_waited_for_again(self, store, clock, worker):
        store.add([make_task(name="come", eta=from_micros(clock.now() + 10 * SECOND))])
        clock.advance(11)
        self.set_clock(store, clock, -HOUR)
        assert names(store.exchange(worker, [], 9)) == ["come"]

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_retries_keep_what_is_left_of_their_delay(self, store, clock, worker, seconds):
        self.fail(store, clock, worker, "failed", 600)
        store.add([make_task(name="busy")])
        (leased,) = store.exchange(worker, [], 1)
        store.exchange(worker, [judged(clock, leased, outcome="busy")], 0)
        store.add([make_task(name="unknown")])
        (leased,) = store.exchange(worker, [], 1)
        store.exchange(worker, [judged(clock, leased, 404, outcome="unknown")], 0)
        clock.advance(0.05)
        left = {name: self.left(store, clock, name) for name in ("failed", "busy", "unknown")}
        self.set_clock(store, clock, seconds)
        assert {name: self.left(store, clock, name) for name in left} == left
        assert left == {"failed": 599.95, "busy": 0.05, "unknown": 0.95}

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_retries_that_were_due_stay_due(self, store, clock, worker, seconds):
        self.fail(store, clock, worker, "failed", 5)
        clock.advance(6)
        self.set_clock(store, clock, seconds)
        assert names(store.exchange(worker, [], 9)) == ["failed"]

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_the_time_for_all_attempts_is_not_used_up_by_it(self, store, clock, worker, told, seconds):
        self.fail(store, clock, worker, "failed", 5, max_attempts=-1, max_retry_duration=60)
        self.set_clock(store, clock, seconds)
        clock.advance(5)
        (leased,) = store.exchange(worker, [], 9)
        store.exchange(worker, [judged(clock, leased)], 0)
        assert told == []
        clock.advance(60)
        (leased,) = store.exchange(worker, [], 9)
        store.exchange(worker, [judged(clock, leased)], 0)
        assert len(told) == 1

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_the_day_that_an_unknown_task_has_is_a_day(self, store, clock, worker, seconds):
        store.add([make_task(name="unknown")])
        (leased,) = store.exchange(worker, [], 1)
        store.exchange(worker, [judged(clock, leased, 404, outcome="unknown")], 0)
        since = clock.now() - to_micros(store.get_task("default", "unknown").unknown)
        self.set_clock(store, clock, seconds)
        assert clock.now() - to_micros(store.get_task("default", "unknown").unknown) == since

    def test_set_forward_what_is_scheduled_comes_due(self, store, clock, worker):
        store.add([make_task(name="soon", eta=from_micros(clock.now() + 60 * SECOND))])
        store.add([make_task(name="later", eta=from_micros(clock.now() + 2 * HOUR * SECOND))])
        self.set_clock(store, clock, HOUR)
        assert names(store.exchange(worker, [], 9)) == ["soon"]

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_what_runs_is_due_if_it_comes_back(self, store, clock, worker, seconds):
        store.add([make_task(name="handed-back"), make_task(name="of-the-dead")])
        leased = store.exchange(worker, [], 9)
        self.set_clock(store, clock, seconds)
        handed_back = next(task for task in leased if task.name == "handed-back")
        store.exchange(worker, returned(handed_back), 0)
        assert names(store.exchange(worker, [], 9)) == ["handed-back"]
        (record,) = store.list_workers()
        store.reclaim(record, 1.0)
        fresh = store.join("here", 2, 2)
        assert store.claim_suspect(fresh) is not None
        assert store.claim_suspect(fresh) is not None

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_what_was_to_run_at_once_does_and_is_tried_again_in_time(self, store, clock, worker, seconds):
        later = from_micros(clock.now() + 2 * HOUR * SECOND)
        store.add([make_task(name="asked", eta=later, retry=RetryOptions(min_backoff=5))])
        store.run_now("default", "asked")
        self.set_clock(store, clock, seconds)
        (leased,) = store.exchange(worker, [], 9)
        store.exchange(worker, [judged(clock, leased)], 0)
        assert 0 <= self.left(store, clock, "asked") <= 5

    def test_what_was_enqueued_since_is_left_as_it_is(self, store, clock, worker):
        before = make_task(name="before", created=from_micros(clock.now()))
        store.add([make_task(name="old", created=from_micros(clock.now()))])
        newest = store.find_newest()
        store.add([before])
        clock.set_back(HOUR)
        now = from_micros(clock.now())
        store.add([make_task(name="countdown", created=now, eta=now + timedelta(minutes=30))])
        store.shift_clock(-HOUR * SECOND, newest)
        # Between the look that found the newest and the setting of the clock one more came; it is due as well.
        assert sorted(names(store.exchange(worker, [], 9))) == ["before", "old"]
        assert self.left(store, clock, "countdown") == 1800

    @pytest.mark.parametrize("seconds", [-HOUR, HOUR])
    def test_a_rate_holds_over_it(self, store, clock, worker, settings, seconds):
        settings.CLOUD_TASKS_QUEUES = [{"name": "slow", "rate_per_second": 2}]
        store.add([make_task(queue="slow") for _ in range(40)])
        assert len(store.exchange(worker, [], 100)) == 10
        self.set_clock(store, clock, seconds)
        assert store.exchange(worker, [], 100) == []
        assert store.next_due() == clock.now() + SECOND // 2
        clock.advance(2)
        assert len(store.exchange(worker, [], 100)) == 4

    def test_names_that_are_kept_stay_taken(self, store, clock, worker):
        store.add([make_task(name="once")])
        (leased,) = store.exchange(worker, [], 1)
        store.exchange(worker, [judged(clock, leased, 200)], 0)
        self.set_clock(store, clock, HOUR)
        assert names(store.find_taken([make_task(name="once")])) == ["once"]
