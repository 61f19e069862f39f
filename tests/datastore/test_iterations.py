"""`@iterative_task` over Datastore kinds, on both editions, with the state in Django's database."""

from __future__ import annotations

import os

import pytest
from django.db import connections
from google.cloud.datastore.query import PropertyFilter

from soc_tasks import ConfigurationError, DatastoreLogic, FatalTaskError, Iteration, iterative_task, startTask
from soc_tasks.logic.datastore_queries import get_client
from soc_tasks.logic.plans import Plan, find_missing_index, find_problem
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests.datastore.rows import parts, put
from tests.emulators import PROJECT, on_every_edition
from tests.views.calls import route

pytestmark = pytest.mark.django_db


@pytest.fixture
def students(kinds):
    rows = {(i + 1 if i % 4 else f"name {i:03}"): {"program": i % 3, "age": 20 + i % 7} for i in range(120)}
    put(kinds, "Student", rows)
    return rows


@pytest.fixture
def seen():
    return {}


def make_view(seen, logic, act=lambda entities: None, **options):
    """Return an iterative view that notes, by shard, what it gets."""

    def view(request, entities, context):
        act(entities)
        seen.setdefault(request.task.shard, []).extend(parts(entities))

    def finalize(context):
        seen.setdefault("finalized", []).append(context)

    return iterative_task(logic, finalize=finalize, **{"batch_size": 7, **options})(view)


def run(task_queues, view, context=None, behaviour=TaskFailedBehaviour.RAISE_ERROR):
    with route(view):
        handle = startTask(view, context)
        task_queues.process_task_queues(failure_behaviour=behaviour)
    return Iteration.get(handle.iteration)


def flat(seen):
    return sorted(str(part) for shard, visited in seen.items() if shard != "finalized" for part in visited)


@on_every_edition
@pytest.mark.parametrize("order", [None, "age"])
def test_every_entity_of_a_kind_in_shards(kinds, students, seen, task_queues, order):
    # Without a client it is the process's own, which the environment leads to the emulator.
    logic = DatastoreLogic("Student", namespace=kinds.namespace)
    iteration = run(task_queues, make_view(seen, logic, shards=4, order=order))
    assert flat(seen) == sorted(map(str, students))
    assert (iteration.status, iteration.done, iteration.total) == ("succeeded", 120, 120)
    assert len(iteration.shards) == 4
    assert len(seen["finalized"]) == 1


@on_every_edition
def test_a_query_and_what_is_posted(kinds, students, seen, task_queues):
    query = kinds.query(kind="Student")
    query.add_filter(filter=PropertyFilter("program", "=", 1))
    view = make_view(seen, query, filter={"age": 22}, shards=2)
    run(task_queues, view, {"filter": {"age": 22}, "subject": "Hello"})
    assert flat(seen) == sorted(str(part) for part in students if students[part] == {"program": 1, "age": 22})
    seen.clear()
    run(task_queues, make_view(seen, query), {"order": "-age", "filter": {"age__gte": 25}})
    ages = [students[part]["age"] for part in seen[0]]
    assert ages == sorted(ages, reverse=True)
    assert set(ages) == {25, 26}


@on_every_edition
def test_a_batch_that_fails_comes_again_and_nothing_else(kinds, students, seen, task_queues):
    failures = []

    def fail_at_times(entities):
        if len(failures) < 5 and seen and len(flat(seen)) % 2:
            failures.append(parts(entities))
            raise RuntimeError("the mail server is away")

    view = make_view(seen, DatastoreLogic("Student", kinds), fail_at_times, shards=3)
    iteration = run(task_queues, view, behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert len(failures) == 5
    assert flat(seen) == sorted(map(str, students))
    assert iteration.status == "succeeded"


@on_every_edition
def test_a_kind_without_entities_still_finalizes(kinds, seen, task_queues):
    iteration = run(task_queues, make_view(seen, DatastoreLogic("Nothing", kinds), shards=4))
    assert (iteration.status, iteration.total) == ("succeeded", 0)
    assert len(seen["finalized"]) == 1


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"filter": {"__key__": 5}}, "'__key__' is not allowed in a posted filter"),
        ({"order": "-__key__"}, "would need a composite index"),
        ({"start_key": "17"}, "is no key of Student"),
        ({"start_key": '["Teacher",["Teacher",1]]'}, "is no key of Student"),
    ],
)
@on_every_edition
def test_what_is_posted_is_refused_before_anything_is_written(kinds, seen, task_queues, context, message):
    with pytest.raises(TaskFailedError, match=message) as caught:
        run(task_queues, make_view(seen, DatastoreLogic("Student", kinds)), context)
    assert isinstance(caught.value.original_exception, FatalTaskError)
    assert list(Iteration.all()) == []


@pytest.mark.parametrize("kinds", [pytest.param("datastore", marks=pytest.mark.requires("datastore"))], indirect=True)
def test_a_query_that_datastore_does_not_have_never_begins(kinds, students, seen, task_queues):
    with pytest.raises(TaskFailedError, match="cannot answer this query of Student") as caught:
        run(task_queues, make_view(seen, DatastoreLogic("Student", kinds), filter={"age__gt": 21}))
    assert isinstance(caught.value.original_exception, FatalTaskError)
    assert list(Iteration.all()) == []


@on_every_edition
def test_atomic_is_refused_over_two_stores(kinds, students, seen, task_queues):
    view = make_view(seen, DatastoreLogic("Student", kinds), atomic=True)
    with pytest.raises(TaskFailedError, match="reads Datastore, and SOC_TASKS") as caught:
        run(task_queues, view)
    assert isinstance(caught.value.original_exception, ConfigurationError)
    assert (seen, list(Iteration.all())) == ({}, [])


def test_checks_ask_no_service(monkeypatch):
    monkeypatch.setenv("DATASTORE_EMULATOR_HOST", "127.0.0.1:1")
    plan = {"logic": DatastoreLogic("Student"), "shards": 4}
    assert find_problem(Plan(**plan)) is None
    assert find_missing_index(Plan(**plan)) is None
    assert "reads Datastore" in find_problem(Plan(**plan, atomic=True))
    assert "would need a composite index" in find_problem(Plan(**plan, order="-__key__"))
    assert "shards need an order that ascends" in find_problem(Plan(**plan, order="-age"))
    assert "give it a client" in find_problem(Plan(**plan, using=next(iter(connections))))


def test_the_process_has_a_client_of_its_own(monkeypatch, settings):
    monkeypatch.setenv("DATASTORE_EMULATOR_HOST", "127.0.0.1:1")
    for name in ("DATASTORE_DATASET", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    settings.CLOUD_TASKS_PROJECT_ID = "of-the-tasks"
    client = get_client()
    assert client.project == "of-the-tasks"
    assert get_client() is client
    assert DatastoreLogic("Student").client is client
    # Another process, or another emulator, has another one.
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert get_client() is not client
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    monkeypatch.setenv("DATASTORE_EMULATOR_HOST", "127.0.0.1:2")
    assert get_client().project == PROJECT
