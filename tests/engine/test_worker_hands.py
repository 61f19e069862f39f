"""How much a worker holds at one time, and when it has nothing left to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from soc_tasks.engine import emptiness, hooks
from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer, RetryOptions
from tests.databases import on_every_database
from tests.engine import views
from tests.engine.running import until
from tests.engine.tasks import make_task, names

pytestmark = on_every_database


@pytest.fixture
def store(engine_database):
    return get_store(engine_database)


@pytest.mark.parametrize("window", [1, 3])
def test_no_more_tasks_are_held_than_the_window_lets(store, window):
    """So many may run again when the process is killed."""
    held = []

    def count_running():
        return sum(record.state == "running" for record in store.list_tasks())

    def dispatch(task, delivery):
        if not held:
            # There is time to claim more.
            until(lambda: count_running() >= window)
        held.append(count_running())
        return Answer(status=200)

    store.add([make_task() for _ in range(20)])
    Worker(store.alias, dispatch=dispatch, window=window).run_until_empty()
    assert (len(held), max(held)) == (20, window)


@pytest.mark.parametrize("others", [True, False])
def test_beside_others_a_process_takes_one_task_before_it_knows_how_long_they_take(store, monkeypatch, others):
    """Of two slices, say: its threads share one interpreter, and another process may have nothing to do."""
    claims, exchange = [], store.exchange

    def note(*given):
        leased = exchange(*given)
        claims.append(len(leased))
        return leased

    monkeypatch.setattr(store, "exchange", note)
    store.add([make_task() for _ in range(100)])
    if others:
        store.join("elsewhere", 1, 1)
    worker = Worker(store.alias, dispatch=lambda *_: Answer(status=200), store=store)
    assert worker.run_until_empty() == 100
    taken = [count for count in claims if count]
    assert (taken[0] == 1) == others
    assert max(taken) > 1


def test_until_empty_leaves_what_is_scheduled_paused_or_of_other_queues(store):
    later = datetime.now(UTC) + timedelta(hours=1)
    store.add([make_task(name="later", eta=later), make_task(name="other", queue="other"), make_task(name="now")])
    Worker(store.alias, queues=["default"]).run_until_empty()
    assert [delivery.name for _, _, delivery in views.seen] == ["now"]
    store.set_paused("other", True)
    Worker(store.alias).run_until_empty()
    assert sorted(names(store.list_tasks())) == ["later", "other"]


def test_until_empty_waits_for_what_upkeep_brings(store, monkeypatch):
    """Tasks of an outbox come by upkeep."""
    held = [make_task(), make_task()]
    monkeypatch.setattr(hooks, "_upkeep", [lambda: store.accept([held.pop()]) if held else None])
    Worker(store.alias).run_until_empty()
    assert len(views.seen) == 2


def test_until_empty_says_now_and_then_what_it_waits_for(store, monkeypatch):
    monkeypatch.setattr(emptiness, "TELL", 0.0)
    store.add([make_task("/answer/500", retry=RetryOptions(max_attempts=2, min_backoff=0.5))])
    lines = []
    Worker(store.alias, tell=lines.append).run_until_empty()
    assert set(lines) == {"waiting for 1 tasks that will be tried again, the next in 1 s"}
