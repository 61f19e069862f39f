"""How many tasks are claimed ahead, and how many threads do good."""

from __future__ import annotations

import pytest

from soc_tasks.engine import pace as pace_module
from soc_tasks.engine.attempts import Job
from soc_tasks.engine.pace import MOST_CLAIMED, STALLED, Pace


class Threads:
    """Stands for a pool."""

    def __init__(self, size):
        self.size = size
        self.queued = 0
        self.begun = []

    def running(self):
        jobs = [Job(None) for _ in self.begun]
        for job, began in zip(jobs, self.begun, strict=True):
            job.began = began
        return jobs


def answered(seconds, count=10):
    jobs = [Job(None) for _ in range(count)]
    for job in jobs:
        job.seconds = seconds
    return jobs


@pytest.fixture
def threads():
    return Threads(4)


@pytest.fixture
def pace(threads):
    return Pace(threads)


@pytest.mark.parametrize(
    ("seconds", "room"),
    [(0.0001, MOST_CLAIMED), (0.005, 40), (0.05, 4), (30.0, 4)],
)
def test_what_runs_in_fifty_milliseconds_is_claimed_and_one_for_each_thread(pace, seconds, room):
    pace.note(answered(seconds), 0.0)
    assert pace.room(0, 0.0) == room
    assert pace.room(3, 0.0) == room - 3
    assert pace.room(room + 5, 0.0) == 0


def test_slow_tasks_and_unknown_ones_are_claimed_one_by_one(pace):
    """Other processes are to get some."""
    assert pace.portion == 1
    for seconds, portion in ((0.0001, None), (0.005, None), (0.05, 1), (0.0001, None)):
        pace.note(answered(seconds), 0.0)
        assert pace.portion == portion


def test_no_more_is_held_than_the_window_lets(threads):
    pace = Pace(threads, window=3)
    pace.note(answered(0.0001), 0.0)
    assert (pace.room(0, 0.0), pace.room(2, 0.0), pace.room(3, 0.0)) == (3, 1, 0)


def test_nothing_is_claimed_ahead_while_slow_tasks_hold_all_threads(pace, threads):
    pace.note(answered(0.0001), 0.0)
    threads.begun, threads.queued = [10.0] * 4, 50
    assert pace.room(4, 10.0) == MOST_CLAIMED - 4
    assert not pace.is_stalled(10.0)
    assert pace.room(4, 11.0) == 0
    assert pace.is_stalled(10.0 + STALLED + 0.01)
    # One thread is free: what waits will start.
    threads.begun.pop()
    assert not pace.is_stalled(11.0)


def test_quick_is_what_answers_quickly_and_lately(pace):
    assert not pace.is_quick(0.0)
    pace.note(answered(0.0001), 5.0)
    assert pace.is_quick(5.0)
    assert not pace.is_quick(5.0 + 2 * STALLED)
    pace.note(answered(1.0, count=1), 6.0)
    assert not pace.is_quick(6.0)


def test_threads_join_while_the_processor_idles_and_leave_while_it_does_not(pace, threads, monkeypatch):
    used, now = [0.0], [100.0]
    monkeypatch.setattr(pace_module.time, "process_time", lambda: used[0])

    def after(share):
        used[0] += share
        now[0] += 1.0
        return pace.count_helpers(now[0])

    after(0.6)
    threads.queued = 10
    assert [after(0.1) for _ in range(5)] == [2, 3, 4, 4, 4]
    assert after(0.6) == 4
    assert [after(1.0) for _ in range(5)] == [3, 2, 1, 1, 1]
    threads.queued = 0
    assert after(0.1) == 1
