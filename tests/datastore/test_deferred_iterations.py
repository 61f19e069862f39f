"""`defer_iteration_with_finalize` over Datastore kinds, on both editions."""

from __future__ import annotations

import functools
from contextlib import closing

import pytest
from google.cloud import datastore
from google.cloud.datastore.query import PropertyFilter

from soc_tasks import ConfigurationError, DatastoreLogic, Iteration, defer_iteration_with_finalize
from soc_tasks.logic.sharding import datastore_key_ranges
from soc_tasks.testing import TaskFailedBehaviour
from tests.datastore.rows import put
from tests.emulators import PROJECT, on_every_edition
from tests.specimen import iterating

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def students(kinds):
    iterating.visits.clear()
    iterating.ends.clear()
    iterating.acts.clear()
    rows = {(i + 1 if i % 4 else f"name {i:03}"): {"program": i % 3, "age": 20 + i % 7} for i in range(90)}
    put(kinds, "Student", rows)
    yield rows
    iterating.acts.clear()


def random_keys(query, shard_count):
    return [10, 20, 30, 40]


def run(task_queues, source, *args, **options):
    handle = defer_iteration_with_finalize(source, iterating.note, iterating.finalize, *args, **options)
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    return Iteration.get(handle.iteration)


def visited():
    return sorted(str(part) for part, *_ in iterating.visits)


@on_every_edition
def test_a_query(kinds, students, task_queues):
    query = kinds.query(kind="Student", order=["age"])
    query.add_filter(filter=PropertyFilter("program", "=", 2))
    iteration = run(task_queues, query, _shards=3)
    assert visited() == sorted(str(part) for part in students if students[part]["program"] == 2)
    assert len(iterating.ends) == 1
    assert (iteration.status, iteration.total) == ("succeeded", 30)
    assert len({shard for _, shard, _ in iterating.visits}) == 3


@on_every_edition
@pytest.mark.parametrize("order", ["pk", "age"])
def test_a_logic_and_its_shards(kinds, students, task_queues, order):
    getter = functools.partial(datastore_key_ranges, random_keys_getter=random_keys) if order == "pk" else None
    run(task_queues, DatastoreLogic("Student", kinds), getter, order, "default", 4, _batch_size=7)
    assert visited() == sorted(map(str, students))
    assert len({shard for _, shard, _ in iterating.visits}) == 4
    assert len(iterating.ends) == 1


@on_every_edition
def test_a_kind_by_its_name(kinds, task_queues):
    # By the process's own client, which has no namespace.
    kind = f"Kind of {kinds.namespace}"
    with closing(datastore.Client(project=PROJECT)) as client:
        put(client, kind, {1: {}, 2: {}})
    run(task_queues, kind)
    assert visited() == ["1", "2"]
    iterating.visits.clear()
    iteration = run(task_queues, f"Nothing in {kinds.namespace}")
    assert (iteration.status, iterating.visits, len(iterating.ends)) == ("succeeded", [], 2)


@on_every_edition
def test_after_a_failure_it_goes_on_from_the_entity(kinds, students, task_queues):
    failed = []

    def fail(entity):
        if entity.key.id_or_name == 42 and len(failed) < 2:
            failed.append(entity.key)
            raise RuntimeError("not now")

    iterating.acts["callback"] = fail
    iteration = run(task_queues, DatastoreLogic("Student", kinds, order_field="-age"), _shards=1)
    assert len(failed) == 2
    assert visited() == sorted(map(str, students))
    assert iteration.status == "succeeded"


@on_every_edition
def test_what_cannot_be(kinds):
    for source, options, error, message in (
        (5, {}, TypeError, "a queryset first, or a kind, query or DatastoreLogic, not int"),
        ("", {}, ValueError, "no name of a kind"),
        (kinds.query(), {}, ValueError, "without a kind"),
        (DatastoreLogic("Student", kinds, order_field="-age"), {}, ValueError, "shards need an order that ascends"),
        (DatastoreLogic("Student", kinds), {"_atomic": True}, ConfigurationError, "reads Datastore"),
    ):
        with pytest.raises(error, match=message):
            defer_iteration_with_finalize(source, iterating.note, iterating.finalize, **options)
