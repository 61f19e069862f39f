"""Queues: what stands in for what is not given, updates, lists, pause and purge; and that they last."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud.tasks_v2 import Queue
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from tests.databases import on_every_database
from tests.engine.server.clients import make_client
from tests.engine.server.conftest import PARENT

RUNNING, PAUSED = Queue.State.RUNNING, Queue.State.PAUSED


def named(name, **configuration):
    return {"name": f"{PARENT}/queues/{name}", **configuration}


def show(queue):
    return json_format.MessageToDict(Queue.pb(queue))


def test_defaults(client):
    queue = client.create_queue(parent=PARENT, queue=named("plain"))
    assert show(queue) == {
        "name": f"{PARENT}/queues/plain",
        "rateLimits": {"maxDispatchesPerSecond": 500.0, "maxBurstSize": 100, "maxConcurrentDispatches": 1000},
        "retryConfig": {"maxAttempts": 100, "minBackoff": "0.100s", "maxBackoff": "3600s", "maxDoublings": 16},
        "state": "RUNNING",
    }
    assert show(client.get_queue(name=queue.name)) == show(queue)


@pytest.mark.parametrize(("rate", "burst"), [(0.25, 10), (1, 10), (50, 10), (51, 11), (500, 100)])
def test_bursts(client, rate, burst):
    queue = client.create_queue(parent=PARENT, queue=named("a", rate_limits={"max_dispatches_per_second": rate}))
    assert (queue.rate_limits.max_dispatches_per_second, queue.rate_limits.max_burst_size) == (rate, burst)


def test_updates(client):
    def update(mask=None, **configuration):
        return client.update_queue(
            queue=named("a", **configuration), update_mask=None if mask is None else FieldMask(paths=mask)
        )

    # One that is not there is made.
    made = update(retry_config={"max_attempts": 7})
    assert (made.retry_config.max_attempts, made.rate_limits.max_concurrent_dispatches) == (7, 1000)
    limits = {"max_dispatches_per_second": 5, "max_concurrent_dispatches": 3}
    changed = update(["rate_limits.max_dispatches_per_second"], rate_limits=limits, retry_config={"max_attempts": 9})
    assert (changed.rate_limits.max_dispatches_per_second, changed.rate_limits.max_burst_size) == (5, 10)
    assert (changed.rate_limits.max_concurrent_dispatches, changed.retry_config.max_attempts) == (1000, 7)
    # A number that is named may be 0, and stays so.
    assert update(["retry_config.max_doublings"]).retry_config.max_doublings == 0
    assert update(["rate_limits"]).retry_config.max_doublings == 0
    # What only the service sets is passed over.
    assert update(["state", "purge_time", "name"], state="PAUSED", purge_time="2020-01-01T00:00:00Z").state == RUNNING
    # Without a mask all of it.
    assert update(rate_limits=limits).retry_config.max_attempts == 100
    with pytest.raises(exceptions.InvalidArgument, match="fields that a queue does not have"):
        update(["rate_limits.none"])
    with pytest.raises(exceptions.InvalidArgument, match="less than or equal to 500"):
        update(["rate_limits"], rate_limits={"max_dispatches_per_second": 501})
    assert client.get_queue(name=made.name).rate_limits.max_dispatches_per_second == 5


def test_lists_go_by_name_page_by_page(client):
    for name in ("b", "c", "a", "a-b", "B"):
        client.create_queue(parent=PARENT, queue=named(name))
    client.create_queue(
        parent="projects/demo/locations/there", queue={"name": "projects/demo/locations/there/queues/a"}
    )
    client.pause_queue(name=f"{PARENT}/queues/b")

    def names(**request):
        return [
            [queue.name.rpartition("/")[2] for queue in page.queues]
            for page in client.list_queues(request={"parent": PARENT, **request}).pages
        ]

    assert names() == [["B", "a", "a-b", "b", "c"]]
    assert names(page_size=2) == [["B", "a"], ["a-b", "b"], ["c"]]
    assert names(filter="state: PAUSED") == [["b"]]
    assert names(filter="state=RUNNING", page_size=3) == [["B", "a", "a-b"], ["c"]]


def test_pause_and_resume(client, queue):
    assert client.pause_queue(name=queue).state == PAUSED
    assert client.get_queue(name=queue).state == PAUSED
    assert client.resume_queue(name=queue).state == RUNNING


@on_every_database
def test_purge(client, queue):
    client.pause_queue(name=queue)
    for name in ("a", "b"):
        task = {"name": f"{queue}/tasks/{name}", "http_request": {"url": "http://127.0.0.1:9/"}}
        client.create_task(parent=queue, task=task)
    purged = client.purge_queue(name=queue)
    assert purged.purge_time.timestamp() == pytest.approx(client.get_queue(name=queue).purge_time.timestamp())
    assert list(client.list_tasks(parent=queue)) == []
    # Their names stay taken.
    with pytest.raises(exceptions.AlreadyExists, match="existed too recently"):
        client.create_task(parent=queue, task=task)


def test_a_name_comes_free_again(serve):
    with serve(queue_tombstone=0.0) as server, make_client(server.port) as client:
        queue = client.create_queue(parent=PARENT, queue=named("a", retry_config={"max_attempts": 7}))
        task = {"name": f"{queue.name}/tasks/a", "http_request": {"url": "http://127.0.0.1:9/"}}
        client.pause_queue(name=queue.name)
        client.create_task(parent=queue.name, task=task)
        client.delete_queue(name=queue.name)
        again = client.create_queue(parent=PARENT, queue=named("a"))
        assert (again.retry_config.max_attempts, again.state) == (100, RUNNING)
        assert list(client.list_tasks(parent=queue.name)) == []


@on_every_database
def test_queues_survive_a_restart(serve):
    with serve() as server, make_client(server.port) as client:
        made = client.create_queue(
            parent=PARENT, queue=named("a", retry_config={"max_attempts": -1, "min_backoff": "0s"}, rate_limits={})
        )
        client.create_queue(parent=PARENT, queue=named("gone"))
        client.delete_queue(name=f"{PARENT}/queues/gone")
        paused = client.pause_queue(name=made.name)
    with serve() as server, make_client(server.port) as client:
        assert show(client.get_queue(name=made.name)) == show(paused)
        with pytest.raises(exceptions.FailedPrecondition):
            client.create_queue(parent=PARENT, queue=named("gone"))


def test_locations(client):
    from google.cloud.location import locations_pb2

    client.create_queue(
        parent="projects/demo/locations/there", queue={"name": "projects/demo/locations/there/queues/a"}
    )
    found = client.list_locations(locations_pb2.ListLocationsRequest(name="projects/demo"))
    assert [location.location_id for location in found.locations] == ["here", "there"]
    assert client.get_location(locations_pb2.GetLocationRequest(name=PARENT)).name == PARENT
    with pytest.raises(exceptions.NotFound):
        client.get_location(locations_pb2.GetLocationRequest(name="projects/demo/locations/nowhere"))
