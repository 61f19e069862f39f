"""gcloud-tasks-emulator, its official client and gunicorn: a task carries a pickled call, as djangae's does.

Libraries on Google's client have no local queue of their own; this is what they are developed against.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contenders.base import Contender, set_up_django
from benchmarks.contenders.work import noop
from benchmarks.processes import find_port, python, running, wait_for_port

QUEUE = "projects/demo/locations/local/queues/default"


class OnEmulator(Contender):
    """The emulator delivers what comes at once, to two workers of gunicorn; so its queue is paused meanwhile."""

    _client: Any

    def set_up(self) -> None:
        set_up_django("benchmarks.contenders.settings")

    @contextmanager
    def serving(self) -> Iterator[list[int]]:
        import grpc
        from google.cloud import tasks_v2
        from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

        port, site = find_port(), find_port()
        serve = python("-m", "benchmarks.contenders.emulator", str(port), str(site), QUEUE)
        gunicorn = python("-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{site}", "--log-level", "error")
        with running(serve, [*gunicorn, "benchmarks.contenders.emulated_site:application"]) as processes:
            wait_for_port(port)
            wait_for_port(site)
            channel = grpc.insecure_channel(f"127.0.0.1:{port}")
            self._client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
            yield processes

    def call(self, *arguments: int | str) -> None:
        from google.cloud import tasks_v2

        request = tasks_v2.AppEngineHttpRequest(
            http_method=tasks_v2.HttpMethod.POST,
            relative_uri="/_tasks/deferred/",
            headers={"Content-Type": "application/octet-stream"},
            body=pickle.dumps((noop, arguments, {})),
        )
        self._client.create_task(parent=QUEUE, task=tasks_v2.Task(app_engine_http_request=request))

    def hold(self) -> None:
        self._client.pause_queue(name=QUEUE)

    def release(self) -> None:
        self._client.resume_queue(name=QUEUE)

    def commands(self) -> list[list[str]]:
        return []


contender = OnEmulator()
