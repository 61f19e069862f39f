"""A site on the backend cloud_tasks beside gcloud-tasks-emulator, which plays App Engine badly.

It calls one port, fixed at its start, and tells a queue's full name. Each test gets queues of its own: the emulator
keeps one thread for each queue, which dies if a task is taken from under it.
"""

from __future__ import annotations

import itertools
import queue
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from django.core.handlers.wsgi import WSGIHandler

from tests.backends.sites.cloud import ServedSite, pointed_at
from tests.live import PATIENCE, serve
from tests.requirements import EMULATOR_PYTHON

_numbers = itertools.count(1)
_SENTINEL = "/sentinel"


class ShortQueueNames:
    """Django middleware that tells the queue's name as App Engine does; for development only (see the how-to page)."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        name = request.META.get("HTTP_X_APPENGINE_QUEUENAME", "")
        if name.startswith("projects/"):
            request.META["HTTP_X_APPENGINE_QUEUENAME"] = name.rpartition("/")[2]
        return self.get_response(request)


class Front:
    """A WSGI application that passes calls on to the site of the test, and holds sentinels until they are let go."""

    def __init__(self):
        self.site = None
        self.came = queue.Queue()
        self._let_go = threading.Semaphore(0)

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] != _SENTINEL:
            return self.site(environ, start_response)
        self.came.put(environ["HTTP_X_APPENGINE_QUEUENAME"])
        self._let_go.acquire(timeout=PATIENCE)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    def let_go(self, count):
        self._let_go.release(count)


class EmulatorSite(ServedSite):
    """A site whose queues know nothing of names, retries' limits and previous answers."""

    routes = True

    def __init__(self, client, live, front):
        super().__init__(client, live)
        self._front = front

    def run(self):
        for name in self.queues:
            self.client.resume_queue(name=name)
        while self._is_busy():
            continue

    def _is_busy(self):
        """Have each queue come to a sentinel, where its thread waits; tell whether something is left behind that."""
        for name in self.queues:
            self.client.create_task(parent=name, task={"app_engine_http_request": {"relative_uri": _SENTINEL}})
        try:
            for _ in self.queues:
                self._front.came.get(timeout=PATIENCE)
            soon = datetime.now(UTC) + timedelta(seconds=10)
            busy = any(task.schedule_time is None or task.schedule_time < soon for task in self.list_waiting())
            if not busy:
                for name in self.queues:
                    self.client.pause_queue(name=name)
            return busy
        finally:
            self._front.let_go(len(self.queues))

    def previous(self, *statuses):
        return [None] * (len(statuses) + 1)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """Start the emulator; give its port, and what it calls."""
    front = Front()
    log = tmp_path_factory.mktemp("emulator") / "log"
    with ExitStack() as stack:
        live = stack.enter_context(serve(front))
        process = subprocess.Popen(
            [EMULATOR_PYTHON, str(Path(__file__).with_name("emulator_main.py")), str(live.server_port)],
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(log.open("wb")),
            stdin=subprocess.DEVNULL,
        )
        try:
            port = process.stdout.readline()
            assert port.strip(), log.read_text()
            with grpc.insecure_channel(f"127.0.0.1:{int(port)}") as channel:
                grpc.channel_ready_future(channel).result(PATIENCE)
            yield int(port), front, live
        finally:
            process.kill()
            process.wait(PATIENCE)
            process.stdout.close()


@contextmanager
def emulator_site(request):
    """Give a site beside the emulator."""
    settings, monkeypatch = request.getfixturevalue("settings"), request.getfixturevalue("monkeypatch")
    port, front, live = request.getfixturevalue("emulator")
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = f"school-{next(_numbers)}", "here"
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks", "TARGET": "app_engine"}
    # What a user of the emulator does (docs/howto/develop-against-tasks-serve.md).
    monkeypatch.setenv("GAE_ENV", "standard")
    settings.MIDDLEWARE = [f"{__name__}.ShortQueueNames", *settings.MIDDLEWARE]
    front.site = WSGIHandler()
    with pointed_at(request, port) as client:
        site = EmulatorSite(client, live, front)
        try:
            yield site
        finally:
            for name in site.queues:
                client.delete_queue(name=name)
