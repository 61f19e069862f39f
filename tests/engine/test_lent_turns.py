"""Turns made in the thread of a task: what is done there, what is left to the engine thread, what goes wrong."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError, connections

from soc_tasks.engine import hooks
from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer, RetryOptions
from tests.databases import on_every_database
from tests.engine.running import until, worker_threads
from tests.engine.tasks import make_task

pytestmark = on_every_database

TASKS = "soc_tasks-dispatch"
ONCE = RetryOptions(max_attempts=1)


@pytest.fixture
def store(engine_database):
    return get_store(engine_database)


@pytest.fixture
def turns(store, monkeypatch):
    """Note for each exchange the thread, and how many verdicts and tasks there were; `turns.fail` is called before."""
    noted = Turns()
    exchange = store.exchange

    def note(worker, verdicts, *args):
        thread = threading.current_thread().name
        noted.before(thread, verdicts)
        leased = exchange(worker, verdicts, *args)
        noted.append((thread, len(verdicts), len(leased)))
        return leased

    monkeypatch.setattr(store, "exchange", note)
    return noted


class Turns(list):
    """Exchanges, and what is done before each."""

    def before(self, thread, verdicts):
        """Do nothing unless told otherwise."""

    def by_tasks(self):
        """Return those that threads of tasks made."""
        return [turn for turn in self if turn[0] == TASKS]


def good(task, delivery):
    return Answer(status=200)


def work(store, dispatch=good, **options):
    worker = Worker(store.alias, dispatch=dispatch, store=store, **{"threads": 1, **options})
    return worker.run_until_empty()


def test_quick_tasks_follow_each_other_without_the_engine_thread(store, turns):
    store.add([make_task() for _ in range(50)])
    assert work(store, window=1) == 50
    # With each answer the next task; the engine thread looks now and then, and at the beginning and the end.
    assert len([turn for turn in turns.by_tasks() if turn[1:] == (1, 1)]) > 25


def test_a_failure_for_good_is_told_by_the_engine_thread(store, turns, monkeypatch):
    """Whoever hears of it may do what it likes with its thread and its connections."""
    told = []
    monkeypatch.setattr(hooks, "tell_exhausted", lambda *_: told.append(threading.current_thread().name))
    store.add([make_task(retry=ONCE) for _ in range(3)] + [make_task() for _ in range(20)])
    answers = iter([500] * 3 + [200] * 20)
    assert work(store, lambda *_: Answer(status=next(answers)), window=1) == 23
    assert len(told) == 3
    assert TASKS not in told
    assert turns.by_tasks()


def test_what_is_written_goes_over_the_connection_of_the_engine_thread(store, turns):
    """What tasks do with theirs is nothing to it, and the other way round."""
    writing, calling = set(), set()
    turns.before = lambda thread, verdicts: writing.add(id(connections[store.alias]))

    def dispatch(task, delivery):
        calling.add(id(connections[store.alias]))
        return Answer(status=200)

    store.add([make_task() for _ in range(20)])
    assert work(store, dispatch, window=1) == 20
    assert turns.by_tasks()
    assert (len(writing), len(calling), writing & calling) == (1, 1, set())


def test_a_database_that_fails_in_it_loses_nothing(store, turns):
    failures = []

    def fail(thread, verdicts):
        if thread == TASKS and len(failures) < 3:
            failures.append(len(verdicts))
            raise OperationalError("gone")

    turns.before = fail
    ran = []
    store.add([make_task(name=f"task-{number}") for number in range(20)])
    assert work(store, lambda task, delivery: ran.append(delivery.name) or Answer(status=200), window=2) == 20
    assert len(failures) == 3
    assert sorted(ran) == sorted(f"task-{number}" for number in range(20))
    assert store.list_tasks() == []


def test_a_fault_in_it_ends_the_worker_as_elsewhere(store, turns):
    def fail(thread, verdicts):
        if thread == TASKS:
            raise LookupError("a fault")

    turns.before = fail
    store.add([make_task() for _ in range(20)])
    worker = Worker(store.alias, dispatch=good, store=store, threads=1, window=1)
    # Verdicts are written one by one first, to find the one that cannot be.
    with pytest.raises(LookupError, match="a fault"):
        worker.run_until_empty()
    turns.before = lambda *_: None
    assert work(store) == 20 - worker.settled
    assert store.list_tasks() == []


def test_what_is_enqueued_while_a_thread_makes_its_turn_runs_at_once(store, turns, monkeypatch):
    """Nobody else would hear of it before the engine thread looks again by itself."""
    monkeypatch.setattr("soc_tasks.engine.rest.POLL", 60.0)
    ran, turn = [], threading.Semaphore(0)
    turns.before = lambda thread, verdicts: verdicts and turn.release()
    with worker_threads(store.alias) as start:
        start(dispatch=lambda *_: ran.append(1) or Answer(status=200), store=store, threads=1)
        for _ in range(30):
            store.add([make_task()])
            assert turn.acquire(timeout=30)
        until(lambda: len(ran) == 30)
    assert turns.by_tasks()
