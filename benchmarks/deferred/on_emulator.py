"""gcloud-tasks-emulator, its official client and gunicorn: a task carries a pickled call, as djangae's does.

Libraries on Google's client have no local queue of their own; this is what they are developed against.
"""

from __future__ import annotations

import pickle

from benchmarks.deferred.contender import (
    Figures,
    find_port,
    measure_deferring,
    measure_run,
    python,
    running,
    set_up_django,
    wait_for_port,
)
from benchmarks.deferred.work import noop

QUEUE = "projects/demo/locations/local/queues/default"


def measure(count: int) -> Figures:
    """Return the rates; the queue is paused while calls are deferred."""
    set_up_django("benchmarks.deferred.settings")
    port, site = find_port(), find_port()
    serve = python("-m", "benchmarks.deferred.emulator", str(port), str(site), QUEUE)
    gunicorn = python("-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{site}", "--log-level", "error")
    with running(serve, [*gunicorn, "benchmarks.deferred.emulated_site:application"]):
        wait_for_port(port)
        wait_for_port(site)
        return measure_service(count, port)


def measure_service(count: int, port: int) -> Figures:
    """Return the rates of a service on a port."""
    import grpc
    from google.cloud import tasks_v2
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))

    def defer(number: int, address: str) -> None:
        request = tasks_v2.AppEngineHttpRequest(
            http_method=tasks_v2.HttpMethod.POST,
            relative_uri="/_tasks/deferred/",
            headers={"Content-Type": "application/octet-stream"},
            body=pickle.dumps((noop, (number, address), {})),
        )
        client.create_task(parent=QUEUE, task=tasks_v2.Task(app_engine_http_request=request))

    client.pause_queue(name=QUEUE)
    figures = measure_deferring(count, defer)
    client.resume_queue(name=QUEUE)
    return figures | measure_run(count)
