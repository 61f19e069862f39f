"""Iterations whose state is in Datastore, on both editions: no test here may touch a database of Django's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.cloud import datastore

from soc_tasks import ConfigurationError, DatastoreLogic, FatalTaskError, Iteration, iterative_task, startTask, task
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.dry_runs import DryRun, DryRunError, Limits
from soc_tasks.logic.letters import find_letters
from soc_tasks.logic.plans import Plan, find_problem
from soc_tasks.logic.upkeep import look_after
from soc_tasks.state import datastore_units
from soc_tasks.state.datastore import get_client
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests.datastore.entities import count, put
from tests.emulators import PROJECT, on_every_edition
from tests.specimen.models import Row
from tests.views.calls import route

#: Entities; batches are small, because Datastore's own emulator takes 25 entity groups in a transaction.
MANY, SIZE = 60, 7


@pytest.fixture
def counters(client):
    put(client, "Counter", range(1, MANY + 1), hits=0)
    return client


def hits(client):
    """Return how often each was counted."""
    return [entity["hits"] for entity in client.query(kind="Counter").fetch()]


def count_up(entities):
    for entity in entities:
        entity["hits"] += 1
    get_client().put_multi(entities)


def make_view(act=count_up, **options):
    def view(request, entities, context):
        act(entities)

    return iterative_task(DatastoreLogic("Counter"), **{"batch_size": SIZE, "atomic": True, **options})(view)


def run(task_queues, view, behaviour=TaskFailedBehaviour.RAISE_ERROR):
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues(failure_behaviour=behaviour)
    return Iteration.get(handle.iteration)


@on_every_edition
@pytest.mark.parametrize("shards", [1, 4])
def test_every_entity_once_with_its_cursor(counters, task_queues, shards):
    finalized = []

    def finalize(context):
        finalized.append(context)

    iteration = run(task_queues, make_view(shards=shards, finalize=finalize))
    assert hits(counters) == [1] * MANY
    assert (iteration.status, iteration.done, iteration.total) == ("succeeded", MANY, MANY)
    assert len(iteration.shards) == shards
    assert finalized == [{}]


@on_every_edition
def test_a_batch_that_fails_leaves_nothing_and_comes_again(counters, task_queues):
    failures = []

    def fail_behind_the_writes(entities):
        count_up(entities)
        if len(failures) < 5 and entities[0].key.id % 2:
            failures.append(entities)
            raise RuntimeError("on purpose")

    iteration = run(task_queues, make_view(fail_behind_the_writes, shards=2), TaskFailedBehaviour.RETRY_TASK)
    assert len(failures) == 5
    assert hits(counters) == [1] * MANY
    assert iteration.status == "succeeded"


@pytest.mark.parametrize("kinds", [pytest.param("datastore", marks=pytest.mark.requires("datastore"))], indirect=True)
def test_a_batch_that_meets_another_writer_counts_both(counters, task_queues):
    # Where readers hold locks, the other one would wait for the batch, and the batch for it.
    other, met = datastore.Client(project=PROJECT, namespace=counters.namespace), []

    def meet(entities):
        if not met:
            met.append(entities)
            entity = other.get(entities[0].key)
            entity["hits"] += 100
            other.put(entity)
        count_up(entities)

    run(task_queues, make_view(meet))
    assert sorted(hits(counters)) == [1] * (MANY - 1) + [101]


@on_every_edition
def test_a_fatal_error_fails_the_shard_and_resume_goes_on_from_there(counters, task_queues):
    bad = [True]

    def refuse(entities):
        if bad and entities[0].key.id > MANY // 2:
            raise FatalTaskError("bad entity")
        count_up(entities)

    view = make_view(refuse)
    iteration = run(task_queues, view, TaskFailedBehaviour.DO_NOTHING)
    assert iteration.status == "failed"
    assert "bad entity" in iteration.error
    assert [letter.error for letter in find_letters()] == ["bad entity"]
    bad.clear()
    with route(view):
        iteration.resume()
        task_queues.process_task_queues()
    assert hits(counters) == [1] * MANY
    assert (iteration.refresh().status, find_letters()) == ("succeeded", [])


@on_every_edition
def test_pause_resume_and_cancel(counters, task_queues):
    def pause(entities):
        count_up(entities)
        if sum(1 for each in Iteration.all() if each.done >= 2 * SIZE and each.status == "running"):
            Iteration.all()[0].pause()

    # Its own transaction would have to commit before it is seen: outside an atomic batch.
    view = make_view(pause, atomic=False)
    iteration = run(task_queues, view)
    assert iteration.status == "paused"
    assert 2 * SIZE <= iteration.done < MANY
    with route(view):
        for _ in range(MANY):
            if iteration.refresh().status != "paused":
                break
            iteration.resume()
            task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert sum(hits(counters)) == MANY
    assert iteration.cancel().status == "succeeded"


@on_every_edition
def test_a_batch_that_writes_too_much_fails_for_good_and_says_so(counters, task_queues):
    def write_much(entities):
        client = get_client()
        client.put_multi([datastore.Entity(client.key("Note", number)) for number in range(1, 501)])

    iteration = run(task_queues, make_view(write_much), TaskFailedBehaviour.DO_NOTHING)
    assert iteration.status == "failed"
    assert "takes at most 500 in one commit" in iteration.error
    assert "Set a smaller batch_size" in iteration.error
    assert count(counters, "Note") == 0


@on_every_edition
def test_batches_that_steer_themselves_fit_into_a_transaction(client, task_queues, settings):
    settings.SOC_TASKS = {**settings.SOC_TASKS, "BATCH_SECONDS": 60}
    parent = client.key("All", 1)
    entities = [datastore.Entity(client.key("Counter", number, parent=parent)) for number in range(1, 401)]
    client.put_multi(entities)
    sizes = []
    view = iterative_task(client.query(kind="Counter"), atomic=True)(
        lambda request, entities: sizes.append(len(entities))
    )
    run(task_queues, view)
    assert sum(sizes) == 400
    assert max(sizes) == 100


@on_every_edition
def test_shards_whose_tasks_are_lost_are_queued_anew(counters, task_queues, memory_backend, monkeypatch):
    lost = []

    def lose(entities):
        if not lost:
            # All that waits; the slice that runs ends with an error, and its task with it.
            lost.append(entities)
            memory_backend.tasks.clear()
            raise RuntimeError("on purpose")
        count_up(entities)

    view = make_view(lose, shards=3)
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        assert Iteration.get(handle.iteration).done == 0
        assert look_after() == (0, 0)
        monkeypatch.setattr("soc_tasks.logic.upkeep.STUCK_AFTER", timedelta(seconds=-60))
        assert look_after() == (0, 3)
        task_queues.process_task_queues()
    assert Iteration.get(handle.iteration).status == "succeeded"
    assert hits(counters) == [1] * MANY


@on_every_edition
def test_an_atomic_task_runs_once(client, task_queues, memory_backend):
    @task(atomic=True)
    def note(request):
        entity = datastore.Entity(client.key("Note", request.task.name))
        get_client().put(entity)
        if request.task.retry_count == 0:
            raise RuntimeError("on purpose")

    with route(note):
        startTask(note)
        [first] = memory_backend.tasks_now()
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        assert count(client, "Note") == 1
        get_client().delete(client.key("Note", first.name))
        # A duplicate, as a queue may deliver it.
        memory_backend.tasks.append(first)
        task_queues.process_task_queues()
    assert count(client, "Note") == 0


@on_every_edition
def test_what_cannot_commit_together_is_refused(state, counters, task_queues):
    elsewhere = datastore.Client(project="elsewhere", namespace="x")
    view = iterative_task(DatastoreLogic("Counter", elsewhere), atomic=True)(lambda request, entities: None)
    with pytest.raises(TaskFailedError, match="entities are on 'datastore:elsewhere//x', and") as caught:
        run(task_queues, view)
    assert isinstance(caught.value.original_exception, ConfigurationError)
    problem = find_problem(Plan(logic=ModelLogic(Row), atomic=True))
    assert "reads SQL, and SOC_TASKS['STATE'] is 'datastore'" in problem
    assert find_problem(Plan(logic=DatastoreLogic("Counter"), atomic=True)) is None


@on_every_edition
def test_a_slice_that_is_undone_again_and_again_is_busy(counters, task_queues, monkeypatch):
    monkeypatch.setattr("soc_tasks.logic.atomic_slices.FIRST_PAUSE", 0.0)
    undone = []

    def undo(entities):
        undone.append(entities)
        raise datastore_units.UndoneError("others went on")

    view = make_view(undo)
    with route(view):
        startTask(view)
        with pytest.raises(TaskFailedError):
            task_queues.process_task_queues()
    # Tried again at once, and no failure of the shard's.
    assert len(undone) == 6
    [iteration] = Iteration.all()
    assert [shard.attempts for shard in iteration.shards] == [0]


@on_every_edition
def test_a_dry_run_that_would_write_is_refused(counters, task_queues):
    view = make_view()
    with route(view), pytest.raises(DryRunError, match="what batches write there would stay"):
        DryRun(Limits(batches=1)).try_task("/view/")
    assert hits(counters) == [0] * MANY
