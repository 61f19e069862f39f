"""The worker in this process: threads, answers, deadlines, trouble with the database, the end."""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.core.signals import request_finished
from django.db import OperationalError, connections

from soc_tasks.engine import caretaker, hooks, rest
from soc_tasks.engine.store import get_store
from soc_tasks.engine.verdicts import Outcome
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer, RetryOptions
from tests.databases import on_every_database
from tests.engine import views
from tests.engine.running import until, worker_threads
from tests.engine.tasks import make_task, names

QUICK = RetryOptions(min_backoff=0, max_backoff=0)


pytestmark = on_every_database


@pytest.fixture
def store(engine_database):
    return get_store(engine_database)


@pytest.fixture
def start(store):
    """Start workers in threads; stop them at the end."""
    with worker_threads(store.alias) as start:
        yield start


def test_tasks_go_through_urls_and_leave_the_queue(store):
    store.add([make_task("/count?a=1", body=b"x=1"), make_task("/noop")])
    assert Worker(store.alias).run_until_empty() == 2
    ((path, body, delivery),) = views.seen
    assert (path, body) == ("/count?a=1", b"x=1")
    assert (delivery.queue, delivery.retry_count, delivery.previous_status) == ("default", 0, None)
    assert store.list_tasks() == []
    assert store.list_workers() == []


def test_many_tasks_with_many_threads(store):
    store.add([make_task() for _ in range(1000)])
    assert Worker(store.alias, threads=8).run_until_empty() == 1000
    assert len(views.seen) == 1000
    assert len({delivery.name for _, _, delivery in views.seen}) == 1000


def test_failures_are_retried_and_the_view_knows(store):
    retry = RetryOptions(max_attempts=3, min_backoff=0, max_backoff=0)
    store.add([make_task("/answer/503", retry=retry)])
    assert Worker(store.alias).run_until_empty() == 3
    seen = [(d.retry_count, d.execution_count, d.previous_status, d.is_last_attempt) for _, _, d in views.seen]
    assert seen == [(0, 0, None, False), (1, 1, 503, False), (2, 2, 503, True)]


@pytest.mark.parametrize("path", ["/crash", "/leave", "/nowhere"])
def test_whatever_a_view_does_its_thread_goes_on(store, path, caplog):
    store.add([make_task(path, retry=RetryOptions(max_attempts=1)) for _ in range(4)])
    store.add([make_task()])
    assert Worker(store.alias, threads=1).run_until_empty() == 5
    assert len(views.seen) == 1


def test_busy_tasks_come_again_uncounted(store):
    answers = iter([Answer(status=500, outcome="busy")] * 2)
    calls = []

    def dispatch(task, delivery):
        calls.append(delivery.retry_count)
        return next(answers, Answer(status=200))

    store.add([make_task()])
    Worker(store.alias, dispatch=dispatch).run_until_empty()
    assert calls == [0, 0, 0]


def test_a_task_with_an_eta_starts_when_it_is_due(store):
    due = datetime.now(UTC) + timedelta(seconds=0.3)
    store.add([make_task(eta=due, retry=QUICK)])
    times = []

    def dispatch(task, delivery):
        times.append(datetime.now(UTC))
        return Answer(status=200)

    worker = Worker(store.alias, dispatch=dispatch, ready=None)
    thread = threading.Thread(target=worker.run)
    thread.start()
    until(lambda: times)
    worker.stop()
    thread.join(30)
    assert due <= times[0] < due + timedelta(seconds=5)


def test_an_enqueued_task_wakes_an_idle_worker(store, start, monkeypatch):
    monkeypatch.setattr(rest, "POLL", 60.0)
    start()
    for count in range(1, 4):
        store.add([make_task()])
        until(lambda count=count: len(views.seen) == count)


def test_slow_tasks_do_not_hold_the_answers_of_quick_ones(store, start):
    start(threads=4)
    store.add([make_task("/wait", name="slow")])
    assert views.waiting.acquire(timeout=30)
    store.add([make_task() for _ in range(20)])
    until(lambda: names(store.list_tasks()) == ["slow"])
    assert len(views.seen) == 21
    views.let_go.set()
    until(lambda: store.list_tasks() == [])


def test_what_is_claimed_ahead_goes_back_when_slow_tasks_take_all_threads(store, start):
    """Another worker gets what would wait here."""
    start(threads=2, queues=["default"])
    store.add([make_task("/noop") for _ in range(200)])
    until(lambda: store.list_tasks() == [])
    # The worker thinks its tasks quick now, and claims many ahead.
    store.add([make_task("/wait") for _ in range(2)] + [make_task() for _ in range(50)])
    assert views.waiting.acquire(timeout=30)
    assert views.waiting.acquire(timeout=30)
    until(lambda: sum(record.state == "running" for record in store.list_tasks()) == 2)
    other = Worker(store.alias, threads=1)
    thread = threading.Thread(target=other.run)
    thread.start()
    until(lambda: len(store.list_tasks()) == 2)
    other.stop()
    thread.join(30)
    views.let_go.set()
    until(lambda: store.list_tasks() == [])


def test_an_attempt_past_its_deadline_is_abandoned_and_its_late_answer_ignored(store, start):
    start(threads=1)
    store.add([make_task("/wait", name="hung", dispatch_deadline=0.05, retry=RetryOptions(min_backoff=3600))])
    until(lambda: store.get_task("default", "hung").attempts == 1)
    record = store.get_task("default", "hung")
    assert (record.status, record.responses, record.state) == (504, 0, "waiting")
    # The only thread was written off, and replaced.
    store.add([make_task(name="next")])
    until(lambda: len(views.seen) == 2)
    views.let_go.set()
    until(lambda: names(store.list_tasks()) == ["hung"])
    assert store.get_task("default", "hung").attempts == 1


def test_a_thread_that_hangs_between_two_tasks_is_replaced_and_its_task_is_done(store, start, monkeypatch):
    """As one may that asks a connection with an error whether it is broken."""
    let_go = threading.Event()

    def hang():
        if views.seen and not let_go.is_set():
            assert let_go.wait(60)

    monkeypatch.setattr("soc_tasks.engine.pool.tidy", hang)
    start(threads=1)
    store.add([make_task(name="first", dispatch_deadline=0.05)])
    until(lambda: store.list_tasks() == [])
    # The only thread hangs. What it does not get to comes back to be claimed, until there is another thread.
    store.add([make_task("/answer/204", name="second")])
    until(lambda: store.list_tasks() == [])
    let_go.set()
    assert [path for path, _, _ in views.seen] == ["/count", "/answer/204"]


def test_the_default_deadline_is_ten_minutes(store):
    store.add([make_task()])
    Worker(store.alias).run_until_empty()
    assert 500 < views.seen[0][2].deadline - time.monotonic() <= 600


def test_stop_lets_running_tasks_end_and_returns_the_others(store, start):
    worker = start(threads=2)
    store.add([make_task("/wait", name=f"w{number}") for number in range(6)])
    assert views.waiting.acquire(timeout=30)
    assert views.waiting.acquire(timeout=30)
    worker.stop()
    # The views saw that the worker is stopping, and answered 500: two attempts, no more.
    until(lambda: store.list_workers() == [])
    records = store.list_tasks()
    assert sorted(record.attempts for record in records) == [0, 0, 0, 0, 1, 1]
    assert {record.state for record in records} == {"waiting"}


def test_tasks_that_outlast_the_grace_are_handed_back_uncounted(store, start):
    stuck = threading.Event()

    def dispatch(task, delivery):
        views.waiting.release()
        stuck.wait(60)
        return Answer(status=200)

    worker = start(threads=1, dispatch=dispatch, grace=0.05)
    store.add([make_task(name="stuck")])
    assert views.waiting.acquire(timeout=30)
    worker.stop()
    until(lambda: store.list_workers() == [])
    record = store.get_task("default", "stuck")
    assert (record.state, record.attempts, record.crashes) == ("waiting", 0, 0)
    stuck.set()


def test_a_worker_that_was_taken_for_dead_joins_again(store, start, monkeypatch):
    start()
    store.add([make_task("/wait", name="slow")])
    assert views.waiting.acquire(timeout=30)
    (record,) = store.list_workers()
    until(lambda: store.reclaim(store.list_workers()[0], 60.0) is not None)
    until(lambda: any(row.id != record.id for row in store.list_workers()))
    # Its late answer settles nothing: the task is a suspect now, and runs again, alone.
    views.let_go.set()
    until(lambda: store.list_tasks() == [])
    assert [delivery.name for _, _, delivery in views.seen] == ["slow", "slow"]


def test_suspects_run_alone(store, start):
    dead = store.join("elsewhere", 1, 1)
    store.add([make_task("/wait", name="suspect")])
    store.exchange(dead, [], 1)
    (record,) = store.list_workers()
    store.reclaim(record, 60.0)
    start(threads=4)
    assert views.waiting.acquire(timeout=30)
    store.add([make_task(name="neighbour")])
    assert store.get_task("default", "suspect").state == "running"
    assert names(store.list_tasks()) == ["suspect", "neighbour"]
    views.let_go.set()
    until(lambda: store.list_tasks() == [])
    assert [delivery.name for _, _, delivery in views.seen] == ["suspect", "neighbour"]


def test_many_suspects_run_one_after_the_other_without_delay(store):
    dead = store.join("elsewhere", 1, 1)
    store.add([make_task() for _ in range(100)])
    store.exchange(dead, [], 100)
    store.reclaim(store.list_workers()[0], 60.0)
    start = time.monotonic()
    assert Worker(store.alias).run_until_empty() == 100
    assert time.monotonic() - start < 10


def test_a_queue_at_its_limit_keeps_no_worker_spinning(store, start, settings, monkeypatch):
    settings.CLOUD_TASKS_QUEUES = [{"name": "narrow", "rate_max_concurrent": 1}]
    exchanges, rounds = [], []
    exchange, list_workers = type(store).exchange, type(store).list_workers
    monkeypatch.setattr(type(store), "exchange", lambda *given: exchanges.append(1) or exchange(*given))
    monkeypatch.setattr(type(store), "list_workers", lambda *given: rounds.append(1) or list_workers(*given))
    start(threads=4)
    store.add([make_task("/wait", queue="narrow"), make_task(name="second", queue="narrow")])
    assert views.waiting.acquire(timeout=30)
    before, round_before = len(exchanges), len(rounds)
    until(lambda: len(rounds) > round_before + 2)
    assert len(exchanges) - before < 10
    assert store.get_task("narrow", "second").state == "waiting"
    views.let_go.set()
    until(lambda: store.list_tasks() == [])


def test_a_worker_outlives_its_database_being_locked(store, start, caplog):
    if connections[store.alias].vendor != "sqlite":
        pytest.skip("servers lock rows; what becomes of workers without their server is tested among the faults")
    connections.settings[store.alias]["OPTIONS"]["timeout"] = 0.01
    start(threads=2)
    store.add([make_task("/wait", name="answered-while-locked")])
    assert views.waiting.acquire(timeout=30)
    other = sqlite3.connect(connections[store.alias].settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    views.let_go.set()
    until(lambda: "is not to be had" in caplog.text)
    other.execute("ROLLBACK")
    other.close()
    until(lambda: store.list_tasks() == [])
    assert len(views.seen) == 1


def test_a_claim_whose_answer_was_lost_is_given_back(store, start, monkeypatch):
    """The database committed, and the connection broke before the worker heard of it."""
    claim, lost = type(store).exchange, []

    def lose_once(self, worker, verdicts, limit, *rest):
        leased = claim(self, worker, verdicts, limit, *rest)
        if leased and not lost:
            lost.append(leased)
            raise OperationalError("the connection is gone")
        return leased

    monkeypatch.setattr(type(store), "exchange", lose_once)
    start()
    store.add([make_task() for _ in range(5)])
    until(lambda: store.list_tasks() == [])
    assert lost
    assert len(views.seen) == 5


def test_a_verdict_that_cannot_be_written_takes_no_other_along(store, start, monkeypatch, caplog):
    settle = type(store)._settle

    def fail(self, cursor, verdicts):
        if any(verdict.leased.name == "bad" and verdict.outcome is Outcome.DONE for verdict in verdicts):
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        settle(self, cursor, verdicts)

    monkeypatch.setattr(type(store), "_settle", fail)
    start()
    store.add([make_task(name="bad")] + [make_task() for _ in range(5)])
    until(lambda: [(record.task.name, record.state) for record in store.list_tasks()] == [("bad", "waiting")])
    assert "what came of task bad of queue default cannot be written" in caplog.text
    record = store.get_task("default", "bad")
    assert record.attempts == 0
    # Not at once: it would go round and round.
    assert record.due > datetime.now(UTC) + timedelta(seconds=30)


def test_a_worker_that_fails_leaves(store, monkeypatch):
    def fail(self, cursor, verdicts):
        raise OverflowError("whatever it is")

    monkeypatch.setattr(type(store), "_settle", fail)
    store.add([make_task(), make_task()])
    with pytest.raises(OverflowError):
        Worker(store.alias).run_until_empty()
    assert store.list_workers() == []
    assert {record.state for record in store.list_tasks()} == {"waiting"}


def test_threads_keep_their_connections_from_task_to_task(store, start):
    connections.settings[store.alias]["CONN_MAX_AGE"] = 0
    opened = []

    def dispatch(task, delivery):
        connection = connections[store.alias]
        connection.ensure_connection()
        opened.append(connection.connection)
        request_finished.send(sender=None)
        return Answer(status=200)

    start(threads=1, dispatch=dispatch)
    for count in range(1, 4):
        store.add([make_task()])
        until(lambda count=count: len(opened) == count)
    assert len(set(map(id, opened))) == 1
    # Other threads of the process keep Django's way.
    assert connections[store.alias].settings_dict["CONN_MAX_AGE"] == 0


def test_upkeep_is_done_by_the_oldest_worker_only(store, start, monkeypatch):
    monkeypatch.setattr(caretaker, "UPKEEP", 0.01)
    rounds = []
    monkeypatch.setattr(hooks, "_upkeep", [lambda: rounds.append(threading.current_thread())])
    start()
    until(lambda: len(rounds) > 1)
    start()
    until(lambda: len(store.list_workers()) == 2)
    seen = len(rounds)
    until(lambda: len(rounds) > seen + 2)
    assert len(set(rounds)) == 1


def test_what_is_old_is_looked_for_less_often(store, start, monkeypatch):
    monkeypatch.setattr(caretaker, "UPKEEP", 0.01)
    rounds, sweeps = [], []
    found = iter([2, 1, 0])
    monkeypatch.setattr(hooks, "_upkeep", [lambda: rounds.append(1)])
    monkeypatch.setattr(type(store), "sweep", lambda self, **options: sweeps.append(len(rounds)) or next(found))
    start()
    until(lambda: len(rounds) > 6)
    assert sweeps == [0, 1, 2]


def test_a_sweep_that_fails_ends_no_thread(store, start, monkeypatch, caplog):
    monkeypatch.setattr(caretaker, "UPKEEP", 0.01)
    rounds = []
    monkeypatch.setattr(type(store), "sweep", lambda self, **options: rounds.append(1) or 1 // 0)
    start()
    until(lambda: len(rounds) > 2)
    assert "the sweep of old tasks failed" in caplog.text


def test_upkeep_that_fails_is_logged_and_tried_again(store, start, monkeypatch, caplog):
    monkeypatch.setattr(caretaker, "UPKEEP", 0.01)
    rounds = []

    def fail():
        rounds.append(1)
        raise ValueError("no relay")

    monkeypatch.setattr(hooks, "_upkeep", [fail])
    start()
    until(lambda: len(rounds) > 2)
    assert "regular upkeep failed" in caplog.text
