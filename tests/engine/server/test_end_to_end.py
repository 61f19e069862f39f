"""Tasks from the official client to a target, and what becomes of them."""

from __future__ import annotations

import pytest
from google.api_core import exceptions

from tests.databases import on_every_database
from tests.engine.running import until
from tests.engine.server.conftest import PARENT


def is_gone(client, name):
    try:
        client.get_task(name=name)
    except exceptions.NotFound:
        return True
    return False


@on_every_database
def test_a_task_is_called_and_gone(client, target, queue):
    task = client.create_task(
        parent=queue,
        task={"http_request": {"url": f"{target.url}/work?a=1", "body": b"x", "headers": {"X-Mine": "y"}}},
    )
    assert task.name.startswith(f"{queue}/tasks/")
    [request] = target.take()
    assert (request.first, request.body) == ("POST /work?a=1 HTTP/1.1", b"x")
    until(lambda: is_gone(client, task.name))
    with pytest.raises(exceptions.NotFound, match="The task no longer exists"):
        client.get_task(name=task.name)


@on_every_database
def test_a_queue_takes_its_tasks_along(client, queue):
    client.pause_queue(name=queue)
    task = client.create_task(parent=queue, task={"http_request": {"url": "http://127.0.0.1:9/"}})
    assert [each.name for each in client.list_tasks(parent=queue)] == [task.name]
    client.delete_queue(name=queue)
    assert list(client.list_queues(parent=PARENT)) == []
    with pytest.raises(exceptions.NotFound, match="Queue does not exist"):
        client.get_queue(name=queue)
    with pytest.raises(exceptions.FailedPrecondition, match="existed too recently"):
        client.create_queue(parent=PARENT, queue={"name": queue})
