"""A site on the backend cloud_tasks: `tasks serve` keeps its tasks, and calls it by HTTP with tokens."""

from __future__ import annotations

import http.client
from contextlib import contextmanager

from soc_tasks.backends.cloud_tasks import service
from soc_tasks.backends.cloud_tasks.backend import location_path, queue_path
from soc_tasks.backends.cloud_tasks.queues import QueueService
from soc_tasks.backends.cloud_tasks.wire import KEPT_BYTES, write_request
from soc_tasks.engine.server.names import Location
from soc_tasks.engine.server.server import Options, Server
from tests.backends.sites.base import QUEUES, AheadClock, Site, is_idle
from tests.engine.running import until
from tests.engine.server.clients import make_client
from tests.live import PATIENCE, serve


class ServedSite(Site):
    """A site whose queues stand still but while it runs.

    Args:
        client: the official client of the server.
        live: where the site is served.
    """

    copies = True

    def __init__(self, client, live):
        self.client = client
        self._live = live
        QueueService(client).apply(QueueService(client).plan())
        self.queues = [queue_path(queue["name"]) for queue in QUEUES]
        for queue in self.queues:
            client.pause_queue(name=queue)

    def list_waiting(self):
        return [task for queue in self.queues for task in self.client.list_tasks(parent=queue)]

    def post(self, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self._live.server_port, timeout=PATIENCE)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded", **headers})
            return connection.getresponse().status
        finally:
            connection.close()

    def measure(self, context):
        task = self.build(context)
        return write_request(task, queue_path(task.queue)).task.ByteSize() + KEPT_BYTES


class CloudSite(ServedSite):
    """A site beside our own server, which tells all that the service tells."""

    sends_tokens = True

    def __init__(self, server, client, live):
        super().__init__(client, live)
        self._store = server.store
        self.clock = server.store.clock

    def run(self):
        for queue in self.queues:
            self.client.resume_queue(name=queue)
        until(lambda: is_idle(self._store))
        for queue in self.queues:
            self.client.pause_queue(name=queue)

    def executions(self, *statuses):
        """Leave out answers of 5xx, as the service does with HTTP targets."""
        return [sum(status < 500 for status in statuses[:end]) for end in range(len(statuses) + 1)]


@contextmanager
def pointed_at(request, port):
    """Have the backend talk to the server on a port of this machine, and forget its channels at the end."""
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("TASKS_EMULATOR_HOST", f"127.0.0.1:{port}")
    monkeypatch.setattr(service, "_services", made := {})
    try:
        with make_client(port) as client:
            yield client
    finally:
        for each in made.values():
            each.close()


@contextmanager
def cloud_site(request):
    """Give a site on the backend cloud_tasks."""
    settings = request.getfixturevalue("settings")
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "school", "here"
    options = Options(
        alias=request.getfixturevalue("served_database"),
        threads=4,
        grace=2.0,
        key=request.getfixturevalue("key"),
        locations=frozenset({Location("school", "here")}),
    )
    server = Server(options)
    server.store.clock = AheadClock()
    server.start()
    try:
        with serve() as live, pointed_at(request, server.port) as client:
            keys = f"http://127.0.0.1:{server.keys_port}"
            settings.SOC_TASKS = {
                "BACKEND": "cloud_tasks",
                "TARGET": "http",
                "URL": live.url,
                "SERVICE_ACCOUNT": "tasks@school.example",
                "OIDC_ISSUER": keys,
                "OIDC_CERTS_URL": f"{keys}/certs",
            }
            assert location_path() == "projects/school/locations/here"
            yield CloudSite(server, client, live)
    finally:
        server.stop(0.0)
