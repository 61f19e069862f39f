"""The contract of a store: limits hold over all workers, queues start slowly, and give way where they are refused."""

from __future__ import annotations

import math
import threading

import pytest

from soc_tasks.engine import caps
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.rows import QUEUES
from soc_tasks.engine.verdicts import judge
from soc_tasks.values import Answer, RetryOptions
from tests.engine.tasks import done, judged, make_task


def refused(clock, leased, status=503, seconds=0.0, **answer):
    """Return the verdict on a task whose target answered after so many seconds that it is overloaded."""
    return judge(leased, Answer(status=status, **answer), clock.now() - round(seconds * SECOND), clock.now())


def kept_of(store, queue):
    """Return tokens and cap of a queue."""
    rows = store.select(f"SELECT tokens, cap FROM {QUEUES} WHERE name = %s", (queue,))
    return rows[0] if rows else None


class LimitsContract:
    """What holds a queue back beyond its pause."""

    # Many workers.

    def test_a_rate_holds_over_all_workers(self, store, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "slow", "rate_per_second": 3}]
        store.add([make_task(queue="slow") for _ in range(100)])
        store.add([make_task() for _ in range(60)])
        claimed = [[] for _ in range(4)]

        def work(number):
            worker = store.join("here", number, 1)
            for _ in range(40):
                claimed[number] += store.exchange(worker, [], 7)

        self.in_threads(4, work)
        # The clock stands still: the burst, and not one more. What has no limit was claimed whole.
        queues = [task.queue for part in claimed for task in part]
        assert queues.count("slow") == 10
        assert queues.count("default") == 60

    def test_two_that_look_at_one_time_do_not_both_take_the_last_place(self, store, settings, monkeypatch):
        settings.CLOUD_TASKS_QUEUES = [{"name": "narrow", "rate_max_concurrent": 1}]
        store.add([make_task(queue="narrow") for _ in range(9)])
        counted, tried, leased = threading.Event(), threading.Event(), []
        claim = type(store).claim

        def claim_late(self, *rest):
            if not counted.is_set():
                counted.set()
                # Where there is one writer at a time, the other one waits for this one's end.
                tried.wait(0.2)
            return claim(self, *rest)

        def work(number):
            worker = store.join("here", number, 1)
            if number:
                assert counted.wait(10)
            leased.extend(store.exchange(worker, [], 9))
            tried.set()

        monkeypatch.setattr(type(store), "claim", claim_late)
        self.in_threads(2, work)
        assert len(leased) == 1

    def test_queues_that_somebody_else_has_locked_are_left_out(self, store, clock, worker, settings, monkeypatch):
        settings.CLOUD_TASKS_QUEUES = [{"name": "slow", "rate_per_second": 2}]
        store.add([make_task(queue="slow") for _ in range(3)])
        store.add([make_task()])
        asked = []
        monkeypatch.setattr(type(store), "lock_queues", lambda self, cursor, names: asked.append(set(names)) or ())
        assert [task.queue for task in store.exchange(worker, [], 9)] == ["default"]
        assert asked == [{"slow"}]
        # What is to run at once is not part of its limits.
        store.run_now("slow", store.list_tasks("slow")[0].task.name)
        assert [task.queue for task in store.exchange(worker, [], 9)] == ["slow"]
        # Nor does it take what only a claim may change.
        (leased,) = [record for record in store.list_tasks("slow") if record.state == "running"]
        assert leased.task.queue == "slow"
        assert kept_of(store, "slow") is None

    def test_queues_without_options_are_not_looked_at_closely(self, store, worker, monkeypatch):
        monkeypatch.setattr(type(store), "lock_queues", None)
        monkeypatch.setattr(type(store), "_count_running", None)
        store.add([make_task(), make_task(queue="other")])
        leased = store.exchange(worker, [], 9)
        store.exchange(worker, done(*leased), 9)
        assert store.next_due() is None

    # Slow start.

    def test_a_fast_queue_starts_slowly_after_a_rest(self, store, clock, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "fast", "rate_per_second": 100}]
        store.add([make_task(queue="fast") for _ in range(300)])
        assert len(store.exchange(worker, [], 200)) == 10
        assert store.exchange(worker, [], 200) == []
        clock.advance(1)
        # The integral of 10 * 2^t over the first second.
        assert len(store.exchange(worker, [], 200)) == int(10 / math.log(2))
        assert kept_of(store, "fast")[1] == 10
        clock.advance(10)
        assert len(store.exchange(worker, [], 200)) == 20
        assert kept_of(store, "fast")[1] is None
        clock.advance(1)
        assert len(store.exchange(worker, [], 200)) == 20
        clock.advance(59.9)
        assert len(store.exchange(worker, [], 200)) == 20
        clock.advance(60)
        assert len(store.exchange(worker, [], 200)) == 10

    def test_up_to_ten_a_second_nothing_starts_slowly(self, store, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "q", "rate_per_second": 10}]
        store.add([make_task(queue="q") for _ in range(30)])
        assert len(store.exchange(worker, [], 200)) == 10
        assert kept_of(store, "q")[1] is None

    # Back-pressure.

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_target_that_is_overloaded_slows_its_queue_down(self, store, clock, worker, status, caplog):
        store.add([make_task() for _ in range(200)])
        store.add([make_task(queue="other") for _ in range(3)])
        first = store.exchange(worker, [], 1, {"default"})[0]
        clock.advance(1)
        # One in a second: taken for ten, and halved.
        store.exchange(worker, [refused(clock, first, status, seconds=1)], 0)
        assert kept_of(store, "default") == (0, 5)
        assert "queue default goes at 5 tasks a second for a while" in caplog.text
        assert [record.pace for record in store.list_queues()] == [5, None]
        assert {task.queue for task in store.exchange(worker, [], 100)} == {"other"}
        wait = 10 * math.log2(1 + math.log(2) / (5 * 10))
        assert store.next_due() == clock.now() + math.ceil(wait * SECOND)
        clock.advance((store.next_due() - clock.now()) / SECOND)
        assert len(store.exchange(worker, [], 100)) == 1
        clock.advance(10 - wait)
        # Ten seconds later it is at ten a second again; no burst makes up for what was held back.
        assert len(store.exchange(worker, [], 100)) == 10
        clock.advance(10 * math.log2(500 / 10) + 1e-3)
        assert len(store.exchange(worker, [], 100)) == 100
        assert kept_of(store, "default")[1] is None
        assert [record.pace for record in store.list_queues()] == [None, None]
        assert len(store.exchange(worker, [], 100)) == 89

    def test_the_pace_is_halved_once_a_second_and_never_to_nothing(self, store, clock, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "q", "rate_per_second": 8}]
        store.add([make_task(queue="q", retry=RetryOptions(max_attempts=1, min_backoff=0)) for _ in range(200)])

        def refuse():
            store.run_now("q", store.list_tasks("q", limit=1)[0].task.name)
            (leased,) = store.exchange(worker, [], 1)
            # An attempt that was the last counts like any other.
            store.exchange(worker, [refused(clock, leased)], 0)
            return kept_of(store, "q")[1]

        assert [refuse() for _ in range(3)] == [4, 4, 4]
        clock.advance(1)
        assert refuse() == pytest.approx(4 * 2**0.1 / 2)
        for _ in range(15):
            clock.advance(1)
            refuse()
        assert refuse() == caps.LEAST_RATE
        # A clock that is set back does not keep it there.
        clock.set_back(3600)
        clock.advance(1)
        refuse()
        assert kept_of(store, "q")[1] == caps.LEAST_RATE
        store.run_now("q", store.list_tasks("q", limit=1)[0].task.name)

    def test_what_is_no_refusal_slows_nothing_down(self, store, clock, worker):
        store.add([make_task() for _ in range(8)])
        leased = store.exchange(worker, [], 8)
        statuses = (500, 502, 504, 404, 408)
        verdicts = [judged(clock, task, status) for task, status in zip(leased, statuses, strict=False)]
        verdicts.append(judged(clock, leased[5], 503, outcome="busy"))
        store.exchange(worker, [*verdicts, *done(*leased[6:])], 0)
        assert kept_of(store, "default") is None

    def test_retry_after_holds_the_task_and_not_its_queue(self, store, clock, worker):
        store.add([make_task(name="told"), make_task(name="next")])
        told, other = store.exchange(worker, [], 2)
        store.exchange(worker, [refused(clock, told, 429, retry_after=90.0)], 0)
        store.exchange(worker, [judged(clock, other)], 0)
        clock.advance(1)
        assert [task.name for task in store.exchange(worker, [], 9)] == ["next"]
        assert store.next_due() == clock.now() + 89 * SECOND

    # At once.

    def test_run_now_takes_no_token_and_fails_as_from_its_call(self, store, clock, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "q", "rate_per_second": 1, "retry_min_backoff": 30}]
        store.add([make_task(queue="q") for _ in range(12)])
        store.add([make_task(queue="q", name="wanted")])
        assert len(store.exchange(worker, [], 10)) == 10
        clock.advance(0.5)
        assert store.run_now("q", "wanted")
        clock.advance(0.25)
        (leased,) = store.exchange(worker, [], 10)
        assert leased.name == "wanted"
        assert leased.to_task().eta is None
        clock.advance(0.25)
        assert len(store.exchange(worker, [], 10)) == 1
        called = clock.now() - SECOND // 2
        clock.advance(8)
        store.exchange(worker, [judged(clock, leased)], 0)
        assert store.get_task("q", "wanted").due.timestamp() * SECOND == called + 30 * SECOND
