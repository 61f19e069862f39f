"""A day of queues in seconds: what the store lets go when, on a clock that jumps from moment to moment."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from soc_tasks.engine import hooks
from soc_tasks.engine.caps import SLOW_START
from soc_tasks.engine.clock import SECOND, FakeClock, from_micros
from soc_tasks.engine.store.rows import QUEUES, TASKS
from soc_tasks.engine.store.sqlite import SqliteStore
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.values import Answer, RetryOptions
from tests.engine.simulation import Simulation, largest_burst
from tests.engine.tasks import make_task

HOUR, DAY = 3600, 86400


@pytest.fixture
def store(file_database):
    return SqliteStore(file_database, FakeClock())


@pytest.fixture
def told(monkeypatch):
    told = []
    monkeypatch.setattr(hooks, "_exhausted", [lambda task, attempts, status: told.append((task.name, attempts))])
    return told


def some(count, **fields):
    return [make_task(**fields) for _ in range(count)]


def delays(times):
    return [later - earlier for earlier, later in pairwise(times)]


def test_a_day(store, settings, told):
    """Six queues, three workers with four threads each, work that comes by the hour, a pause, failures, names."""
    settings.CLOUD_TASKS_QUEUES = [
        {"name": "mail", "rate_per_second": 1},
        {"name": "report", "rate_max_concurrent": 3},
        {"name": "sync", "rate_per_second": 2, "rate_max_concurrent": 2},
        {"name": "index", "rate_per_second": 50},
        {"name": "flaky", "retry_min_backoff": 10, "retry_max_backoff": 300, "retry_max_doublings": 3},
    ]

    def play(leased, at):
        if leased.queue == "flaky":
            return 1.5, 500 if leased.attempts < 8 else 200
        return {"mail": 0.2, "report": 7.0, "sync": 0.9, "index": 0.01}.get(leased.queue, 1.0), 200

    simulation = Simulation(store, workers=3, threads=4, play=play)
    for hour in range(24):
        simulation.at(hour * HOUR, store.add, some(40, queue="mail"))
        simulation.at(hour * HOUR + 60, store.add, some(20, queue="default"))
        simulation.at(hour * HOUR + 120, store.add, some(15, queue="report"))
        simulation.at(hour * HOUR + 600, store.add, some(12, queue="sync"))
        simulation.at(hour * HOUR + 900, store.sweep, retention=31 * DAY)
    for hour in (2, 14):
        simulation.at(hour * HOUR + 1800, store.add, some(400, queue="index"))
    simulation.at(5 * HOUR, store.add, [make_task(queue="flaky", name="flaky")])
    simulation.at(6 * HOUR - 1, store.set_paused, "mail", True)
    simulation.at(8 * HOUR - 1, store.set_paused, "mail", False)
    simulation.at(HOUR, store.add, [make_task(name="nightly")])
    simulation.run(DAY)

    # All ran, each once, and what failed as often as it failed; nothing is left but a name.
    expected = {"mail": 24 * 40, "default": 24 * 20 + 1, "report": 24 * 15, "sync": 24 * 12, "index": 800, "flaky": 9}
    assert {queue: len(simulation.times(queue)) for queue in expected} == expected
    assert store.list_tasks() == []
    assert told == []
    # Rates hold in every window, concurrency at every moment, and both are used to the full.
    assert largest_burst(simulation.times("mail"), 1) == pytest.approx(10, abs=0.5)
    assert largest_burst(simulation.times("sync"), 2) <= 10
    assert largest_burst(simulation.times("index"), 50) <= 10 + 1e-3
    assert simulation.most["report"] == 3
    assert simulation.most["sync"] == 2
    # The burst comes at once (as far as there are threads), then one a second.
    first = simulation.times("mail")[:40]
    assert first[9] < 1
    assert [round(at, 6) for at in first[10:14]] == [1, 2, 3, 4]
    # Fifteen reports of seven seconds, three at a time.
    assert simulation.times("report")[:15] == [120 + 7 * (number // 3) for number in range(15)]
    # Held for two hours with two batches, let go with a burst, and one a second from there.
    assert simulation.count("mail", 6 * HOUR - 1, 8 * HOUR - 2) == 0
    resumed = [at - (8 * HOUR - 1) for at in simulation.times("mail") if 8 * HOUR - 1 <= at < 9 * HOUR]
    assert len(resumed) == 120
    assert [round(at, 6) for at in resumed[10:]] == list(range(1, 111))
    # From the end of each attempt: doubled three times, then by equal steps, up to the longest.
    assert delays(simulation.times("flaky")) == [1.5 + delay for delay in (10, 20, 40, 80, 160, 240, 300, 300)]
    # A name is free again a day after its end.
    with pytest.raises(TaskAlreadyExistsError):
        store.add([make_task(name="nightly")])
    simulation.run(DAY + HOUR)
    with pytest.raises(TaskAlreadyExistsError):
        store.add([make_task(name="nightly")])
    simulation.run(DAY + HOUR + 1)
    store.add([make_task(name="nightly")])
    simulation.run(DAY + HOUR + 2)
    assert len(simulation.times(name="nightly")) == 2


def test_the_retry_rule_of_both_limits(store, told):
    both = RetryOptions(max_attempts=3, max_retry_duration=100, min_backoff=10, max_backoff=80)
    few = RetryOptions(max_attempts=3, min_backoff=10, max_backoff=10)
    long = RetryOptions(max_attempts=-1, max_retry_duration=100, min_backoff=10, max_doublings=0)
    simulation = Simulation(store, play=lambda leased, at: (0.0, 500))
    store.add(
        [make_task(name="both", retry=both), make_task(name="few", retry=few), make_task(name="long", retry=long)]
    )
    simulation.run(DAY)
    assert simulation.times(name="few") == [0, 10, 20]
    # The third attempt came before the time was over: it is not the last. The first after that is.
    assert simulation.times(name="both") == [0, 10, 30, 70, 150]
    assert simulation.times(name="long") == [0, 10, 30, 60, 100]
    assert sorted(told) == [("both", 5), ("few", 3), ("long", 5)]


def test_a_fast_queue_starts_slowly_and_doubles_every_second(store, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "fast", "rate_per_second": 500}]
    simulation = Simulation(store, workers=2)
    store.add(some(1800, queue="fast"))
    simulation.run(7)
    assert simulation.count("fast", -1, 0) == 10
    for second in (1, 2, 3, 4, 5):
        expected = SLOW_START + SLOW_START / math.log(2) * (2.0**second - 1)
        assert simulation.count("fast", -1, second) == int(expected)
    # It is at its rate after 5.6 seconds.
    full = math.log2(500 / SLOW_START)
    expected = SLOW_START + (500 - SLOW_START) / math.log(2) + (6.5 - full) * 500
    assert simulation.count("fast", -1, 6.5) == int(expected)
    assert simulation.count("fast", 6.5, 7) == 250


def test_an_overloaded_target_is_spared_and_the_queue_recovers(store):
    """Twenty tasks a second; the target refuses all of them for a minute."""
    simulation = Simulation(
        store, workers=2, threads=2, play=lambda leased, at: (0.01, 503) if 10 <= at < 70 else (0.2, 200)
    )
    store.add(some(5000))
    simulation.run(240)
    assert [simulation.count("default", at, at + 1) for at in range(9)] == [20] * 9
    # Halved each second, at first from what really went on: soon there are only probes, one in some ten seconds.
    refused = [at for at in simulation.times("default") if 10 <= at < 70]
    assert len(refused) < 100
    assert all(7.9 < delay < 10 for delay in delays([at for at in refused if at > 30]))
    # After the first success nothing halves it any more: it doubles every ten seconds, up to what the threads can do.
    since = next(at for at in simulation.times("default") if at >= 70)
    counts = [simulation.count("default", since + at, since + at + 10) for at in range(0, 140, 10)]
    assert all(abs(later - 2 * earlier) <= 2 for earlier, later in pairwise(counts) if later < 190)
    assert counts[-1] == 200
    assert store.select(f"SELECT cap FROM {QUEUES}") == [(None,)]


def test_run_now_goes_past_everything_and_disturbs_nothing(store, settings):
    settings.CLOUD_TASKS_QUEUES = [
        {"name": "q", "rate_per_second": 0.1, "rate_max_concurrent": 1, "retry_min_backoff": 100}
    ]
    play = {"wanted": (30.0, 500)}
    simulation = Simulation(store, play=lambda leased, at: play.get(leased.name, (0.0, 200)))
    store.add(
        [*some(30, queue="q"), make_task(queue="q", name="wanted", eta=from_micros(store.clock.now() + DAY * SECOND))]
    )
    simulation.run(0)
    assert len(simulation.times("q")) == 10
    simulation.at(5, store.run_now, "q", "wanted")
    simulation.at(40, store.set_paused, "q", True)
    simulation.at(50, store.run_now, "q", "wanted")
    simulation.at(55, store.set_paused, "q", False)
    simulation.run(90)
    # It ran at once, twice; while it runs it is one of those that may run at one time, so others wait for its end.
    assert simulation.times(name="wanted") == [5, 50]
    others = [at for at in simulation.times("q") if 0 < at <= 90 and at not in {5, 50}]
    assert others == [35] * 3 + [80] * 5 + [90]
    # The retry counts from the call, and the third attempt is made in its own time.
    assert store.get_task("q", "wanted").due == from_micros(simulation.began + 250 * SECOND)


def test_a_crowd_in_one_queue_holds_up_no_other(store):
    simulation = Simulation(store, workers=2, threads=2, play=lambda leased, at: (1.0, 200))
    store.add(some(3000, queue="crowded"))
    simulation.at(100.5, store.add, some(10, queue="small"))
    simulation.run(200)
    # Every other start is one of the small queue's, until it is done.
    assert simulation.times("small") == [101, 101, 102, 102, 103, 103, 104, 104, 105, 105]


def test_retry_after_is_kept_to_the_microsecond_and_bounded(store):
    after = {"soon": 90.0, "never": 10.0**6, "before": 0.05}

    def play(leased, at):
        return 0.5, Answer(status=503, retry_after=after[leased.name]) if leased.attempts == 0 else Answer(status=200)

    simulation = Simulation(store, play=play)
    for number, name in enumerate(after):
        simulation.at(number * 1000, store.add, [make_task(name=name)])
    simulation.run(DAY)
    for name, delay in (("soon", 90), ("never", 3600), ("before", 0.2)):
        first, second = simulation.times(name=name)
        # The backoff alone is 0.1 s; the pace of its queue holds the last one a moment longer.
        assert second - first == pytest.approx(0.5 + delay, abs=0.01 if name == "before" else 1e-9)
    assert store.select(f"SELECT count(*) FROM {TASKS} WHERE state <> 2")[0][0] == 0
