"""Running due tasks in the calling thread, on a clock that stands still."""

from __future__ import annotations

import itertools

import pytest

from soc_tasks.engine.clock import SECOND, FakeClock, from_micros
from soc_tasks.engine.store.sqlite import SqliteStore
from soc_tasks.values import Answer, RetryOptions
from tests.engine import views
from tests.engine.drain import drain
from tests.engine.tasks import make_task, names

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    """A store in memory, inside the transaction of the test: `drain` needs no more."""
    return SqliteStore("default", clock)


def test_it_runs_what_is_due_through_the_site(store, clock):
    store.add([make_task() for _ in range(50)])
    store.add([make_task(name="later", eta=from_micros(clock.now() + 1))])
    assert drain(store) == 50
    assert len(views.seen) == 50
    assert names(store.list_tasks()) == ["later"]
    assert store.list_workers() == []


def test_an_hour_of_retries_passes_at_once(store, clock):
    """The second documented sequence, call by call."""
    times = []

    def dispatch(task, delivery):
        times.append(clock.now())
        return Answer(status=500)

    retry = RetryOptions(max_attempts=-1, min_backoff=10, max_backoff=200, max_doublings=0)
    store.add([make_task(retry=retry)])
    for _ in range(3600 // 10):
        drain(store, dispatch=dispatch)
        clock.advance(10)
    waits = [(later - sooner) // SECOND for sooner, later in itertools.pairwise(times)]
    assert waits[:22] == [*range(10, 210, 10), 200, 200]


def test_what_a_task_enqueues_runs_too(store):
    def dispatch(task, delivery):
        if len(task.name) < 5:
            store.add([make_task(name=task.name + "+")])
        return Answer(status=200)

    store.add([make_task(name="a")])
    assert drain(store, dispatch=dispatch) == 5


def test_limit_and_queues(store):
    store.add([make_task() for _ in range(5)] + [make_task(queue="other")])
    assert drain(store, limit=2) == 2
    assert drain(store, queues={"other"}, limit=9) in {0, 1}
    drain(store)
    assert len(views.seen) == 6


def test_ctrl_c_keeps_what_was_answered_and_gives_the_rest_back(store):
    def dispatch(task, delivery):
        if task.name == "second":
            raise KeyboardInterrupt
        return Answer(status=200)

    store.add([make_task(name="first"), make_task(name="second"), make_task(name="third")])
    with pytest.raises(KeyboardInterrupt):
        drain(store, dispatch=dispatch)
    assert [(record.task.name, record.state, record.attempts) for record in store.list_tasks()] == [
        ("second", "waiting", 0),
        ("third", "waiting", 0),
    ]
    assert store.list_workers() == []


def test_suspects_run_too(store):
    dead = store.join("elsewhere", 1, 1)
    store.add([make_task()])
    store.exchange(dead, [], 1)
    store.reclaim(store.list_workers()[0], 60.0)
    assert drain(store) == 1
