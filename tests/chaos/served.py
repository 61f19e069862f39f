"""`tasks serve` beside a site whose processes share one socket, as those of a web server do, and get killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

#: Attempts that run at one time.
THREADS = 4
#: Part of the requests that are handled twice.
DOUBLED = 0.05
PATIENCE = 60.0


class Served:
    """A server of tasks that is running, and the socket at which the site is called.

    It is started before Django is set up, and by no thread: those who are forked could not go on with either.
    """

    def __init__(self, listener, process):
        self.listener = listener
        self._process = process

    def site(self, tell):
        """Be a process of the site, and tell when it is ready."""
        from django.core.handlers.wsgi import WSGIHandler
        from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

        class Handler(WSGIRequestHandler):
            def log_message(self, *args):
                """Say nothing."""

        class Server(ThreadedWSGIServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                """Say nothing of those who are gone."""

        signal.alarm(0)
        server = Server(self.listener.getsockname(), Handler, bind_and_activate=False)
        server.socket.close()
        server.socket = self.listener
        server.server_name, server.server_port = "127.0.0.1", self.listener.getsockname()[1]
        server.setup_environ()
        server.set_app(_doubling(WSGIHandler()))
        tell("ready")
        server.serve_forever(0.01)

    @staticmethod
    def relay(tell):
        """Be a relay, and tell when it is ready."""
        from tests.chaos.cloud_enqueues import hurry, relay_until

        signal.alarm(0)
        hurry()
        tell("ready")
        relay_until(lambda: False)


def _doubling(app):
    """Return an application that handles some requests twice, as when the queue delivers twice."""
    draw = random.Random(f"{os.environ.get('SOC_TASKS_CHAOS_SEED')}-{os.getpid()}")

    def handle(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if draw.random() < DOUBLED:
            again = app({**environ, "wsgi.input": BytesIO(body)}, lambda *_: None)
            again.close()
        return app({**environ, "wsgi.input": BytesIO(body)}, start_response)

    return handle


@contextmanager
def serving():
    """Run a server of tasks for the block, with the environment by which a site finds it."""
    from soc_tasks.sandbox.children import _READY

    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "soc_tasks.engine.server", "--port", "0", "--grace", "1", "--until-eof"]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, "--database", str(Path(folder) / "tasks.sqlite3"), "--threads", str(THREADS)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            pause, end = threading.Event(), time.monotonic() + PATIENCE
            while (ready := next(filter(None, map(_READY.match, log.read_text().splitlines())), None)) is None:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                pause.wait(0.05)
            os.environ["TASKS_EMULATOR_HOST"] = ready[1]
            os.environ["SOC_TASKS_CHAOS_SERVED"] = json.dumps(
                {
                    "TARGET": "http",
                    "URL": f"http://127.0.0.1:{listener.getsockname()[1]}",
                    "SERVICE_ACCOUNT": "tasks@school.example.org",
                    "OIDC_ISSUER": ready[3],
                    "OIDC_CERTS_URL": f"{ready[3]}/certs",
                }
            )
            yield Served(listener, process)
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


def make_queues():
    """Make the queues that the settings name, and let what fails come again soon."""
    from google.cloud.tasks_v2 import types
    from google.protobuf.duration_pb2 import Duration

    from soc_tasks.backends.cloud_tasks.queues import QueueService, connect

    with connect() as client:
        parent = QueueService(client).parent
        soon = types.RetryConfig(
            max_attempts=-1, min_backoff=Duration(nanos=10**8), max_backoff=Duration(nanos=5 * 10**8)
        )
        client.create_queue(parent=parent, queue=types.Queue(name=f"{parent}/queues/default", retry_config=soon))


def count_tasks():
    """Return how many tasks the server holds, and how many wait to be sent there."""
    from soc_tasks.backends.cloud_tasks.queues import QueueService, connect
    from soc_tasks.models import OutboxRow

    with connect() as client:
        queue = f"{QueueService(client).parent}/queues/default"
        return len(list(client.list_tasks(parent=queue))) + OutboxRow.objects.count()
