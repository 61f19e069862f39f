"""Many tasks at once."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.longrunning import operations_pb2

from tests.databases import on_every_database

TASK = {"http_request": {"url": "http://127.0.0.1:9/"}}


@pytest.fixture
def create(client, queue):
    """Create tasks of these names."""
    client.pause_queue(name=queue)

    def create(*names, **request):
        requests = [
            {"parent": queue, "task": {"name": f"{queue}/tasks/{name}" if name else "", **TASK}} for name in names
        ]
        return client.batch_create_tasks(request={"parent": queue, "requests": requests, **request})

    return create


def test_all_are_made(client, queue, create):
    operation = create("a", "b", "")
    assert [task.name for task in operation.result().tasks][:2] == [f"{queue}/tasks/a", f"{queue}/tasks/b"]
    assert (operation.metadata.state.name, dict(operation.metadata.failed_requests)) == ("SUCCEEDED", {})
    assert len(list(client.list_tasks(parent=queue))) == 3


@on_every_database
def test_some_are_made(client, queue, create):
    create("a")
    operation = create("a", "b", "no id")
    assert [task.name for task in operation.result().tasks] == [f"{queue}/tasks/b"]
    failed = operation.metadata.failed_requests
    assert {index: status.code for index, status in failed.items()} == {0: 6, 2: 3}
    assert failed[0].message == "Requested entity already exists"
    assert operation.metadata.state.name == "PARTIALLY_SUCCEEDED"


def test_none_is_made(client, queue, create):
    create("a")
    operation = create("a", "a")
    with pytest.raises(exceptions.Aborted, match="None of the requests succeeded, refer to BatchCreateTasksMetadata"):
        operation.result()
    assert set(operation.metadata.failed_requests) == {0, 1}


@on_every_database
def test_deletion(client, queue, create):
    create("a", "b")
    operation = client.batch_delete_tasks(
        request={"parent": queue, "names": [f"{queue}/tasks/{name}" for name in ("a", "none", "b")]}
    )
    operation.result()
    assert {index: status.code for index, status in operation.metadata.failed_requests.items()} == {1: 5}
    assert list(client.list_tasks(parent=queue)) == []


def test_an_operation_can_be_asked_for_and_is_not_done_twice(client, queue, create):
    name = create("a", request_id="mine").operation.name
    kept = client.get_operation(operations_pb2.GetOperationRequest(name=name))
    assert kept.done
    again = create("a", request_id="mine")
    assert again.operation == kept
    assert len(again.result().tasks) == 1
    with pytest.raises(exceptions.NotFound):
        client.get_operation(operations_pb2.GetOperationRequest(name=name[:-1] + ("0" if name[-1] != "0" else "1")))


def test_bounds(client, queue, create):
    with pytest.raises(exceptions.InvalidArgument, match="from 1 to 100"):
        create(*[""] * 101)
    with pytest.raises(exceptions.InvalidArgument, match="from 1 to 100"):
        create()
    with pytest.raises(exceptions.NotFound, match="Queue does not exist"):
        client.batch_delete_tasks(request={"parent": f"{queue}-not", "names": [f"{queue}-not/tasks/a"]})
