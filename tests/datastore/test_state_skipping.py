"""Failed items, their retries, and concurrency, with the state in Datastore."""

from __future__ import annotations

import threading

import pytest

from soc_tasks import DatastoreLogic, Iteration, NotSupportedError, iterative_task, startTask
from soc_tasks.logic import stealing
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.letters import find_letters
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord
from soc_tasks.state.datastore import get_client
from soc_tasks.state.undone import UndoneError
from soc_tasks.testing import TaskFailedBehaviour
from tests.contracts.state_records import RUN
from tests.datastore.entities import put
from tests.emulators import on_every_edition
from tests.specimen.models import Row
from tests.views.calls import route

MANY, BAD = 20, {3, 4, 17}


@pytest.fixture
def counters(client):
    put(client, "Counter", range(1, MANY + 1), hits=0)
    return client


def hits(client):
    """Return how often each was counted."""
    return {entity.key.id: entity["hits"] for entity in client.query(kind="Counter").fetch()}


def make_view(bad, **options):
    def view(request, entities):
        for entity in entities:
            if entity.key.id in bad:
                raise ValueError(f"{entity.key.id} is bad")
            entity["hits"] += 1
        get_client().put_multi(entities)

    return iterative_task(DatastoreLogic("Counter"), **{"batch_size": 6, "on_error": "skip", **options})(view)


def run(task_queues, view):
    handle = startTask(view)
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    return Iteration.get(handle.iteration)


@on_every_edition
@pytest.mark.parametrize("atomic", [True, False])
def test_what_fails_is_given_up_and_done_by_a_retry(counters, task_queues, atomic):
    bad = set(BAD)
    view = make_view(bad, atomic=atomic)
    with route(view):
        iteration = run(task_queues, view)
        assert (iteration.status, iteration.done, iteration.failed) == ("succeeded", MANY - len(BAD), len(BAD))
        assert hits(counters) == {number: int(number not in BAD) for number in range(1, MANY + 1)}
        assert [item.entity for item in iteration.failed_items()] == ["Counter 3", "Counter 4", "Counter 17"]
        # One of them is still bad, and one is gone.
        bad.difference_update({3, 4})
        counters.delete(counters.key("Counter", 4))
        retry = iteration.retry_failed()
        task_queues.process_task_queues()
        assert (retry.refresh().status, retry.done, retry.failed) == ("succeeded", 1, 1)
        assert hits(counters)[3] == 1
        [left] = iteration.failed_items()
        assert (left.entity, left.attempts) == ("Counter 17", 2)
        bad.clear()
        iteration.retry_failed([left])
        task_queues.process_task_queues()
    assert iteration.failed_items() == []
    assert set(hits(counters).values()) == {1}
    assert find_letters() == []


@on_every_edition
@pytest.mark.parametrize("atomic", [True, False])
def test_no_more_fails_than_the_budget_allows(counters, task_queues, atomic):
    bad = set(BAD)
    view = make_view(bad, atomic=atomic, error_budget=1)
    with route(view):
        iteration = run(task_queues, view)
        assert iteration.status == "failed"
        assert "error_budget=1" in iteration.error
        assert iteration.count_failed_items() == 1
        bad.clear()
        iteration.resume()
        task_queues.process_task_queues()
    assert (iteration.refresh().status, iteration.done, iteration.failed) == ("succeeded", MANY - 1, 1)


@on_every_edition
@pytest.mark.parametrize("atomic", [True, False])
def test_no_more_shards_work_than_may(counters, task_queues, atomic):
    seen = []

    def view(request, entities):
        [iteration] = Iteration.all()
        if not seen:
            iteration.set_concurrency(1)
        seen.append(get_state().get_iteration(iteration.id).parked)
        for entity in entities:
            entity["hits"] += 1
        get_client().put_multi(entities)

    view = iterative_task(DatastoreLogic("Counter"), batch_size=2, shards=4, atomic=atomic)(view)
    with route(view):
        iteration = run(task_queues, view)
        assert (iteration.status, iteration.done) == ("succeeded", MANY)
    assert set(hits(counters).values()) == {1}
    assert max(seen) == 3


@on_every_edition
def test_a_test_of_interruptions_is_refused_before_anything_is_written(counters, task_queues):
    view = make_view(set(), atomic=True)
    with route(view), pytest.raises(NotSupportedError, match="Set it to 'django' for this test"):
        task_queues.assert_resumable(view)
    assert Iteration.all() == []
    assert set(hits(counters).values()) == {0}


@pytest.mark.parametrize("kinds", [pytest.param("datastore", marks=pytest.mark.requires("datastore"))], indirect=True)
def test_of_two_that_hold_an_iteration_one_is_undone(state):
    # Where readers hold locks, the second would wait for the first.
    state.create_iteration(IterationRecord(id=RUN, name="run"), [])

    def hold():
        state.run(lambda: state.get_iteration(RUN, lock=True))

    def hold_both():
        with state.atomic():
            state.get_iteration(RUN, lock=True)
            other = threading.Thread(target=hold)
            other.start()
            other.join()

    with pytest.raises(UndoneError):
        hold_both()


@on_every_edition
@pytest.mark.django_db
def test_a_shard_over_rows_takes_over_what_another_has_left(state, task_queues, monkeypatch):
    monkeypatch.setattr(stealing, "LEAST_SECONDS", 0)
    rows, seen = Row.objects.bulk_create(Row() for _ in range(60)), []

    def view(request, entities):
        seen.extend(entities)

    view = iterative_task(ModelLogic(Row), batch_size=2, shards=2)(view)
    with route(view):
        iteration = run(task_queues, view)
    assert (iteration.status, iteration.done) == ("succeeded", 60)
    assert {row.pk for row in seen} == {row.pk for row in rows}
    assert len(seen) == 60
    # The first to run has its half, and some of the other one.
    assert max(shard.done for shard in iteration.shards) > 30
    assert not state.get_iteration(iteration.id).wanted
