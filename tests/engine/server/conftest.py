"""A server on a database of its own, the official client to it, and a target that writes down what comes."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from soc_tasks.engine.server.names import Location
from soc_tasks.engine.server.server import Options, Server
from soc_tasks.engine.server.tokens import Tokens
from tests.engine.server.clients import make_client
from tests.live import PATIENCE, read_request, script

PARENT = "projects/demo/locations/here"


class Target:
    """Answers by a script, the last answer again and again, and keeps requests as they came."""

    def __init__(self):
        self.answers = ["200 OK"]
        self.requests = []
        self.came = threading.Semaphore(0)
        self.hold = None
        self.url = None

    def act(self, connection, number):
        while True:
            head, body = read_request(connection)
            first, *lines = head.decode("latin-1").split("\r\n")
            self.requests.append(
                SimpleNamespace(first=first, headers=dict(line.split(": ", 1) for line in lines), body=body)
            )
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
            self.came.release()
            if self.hold is not None:
                assert self.hold.wait(PATIENCE)
            status, *headers = [answer] if isinstance(answer, str) else answer
            text = "\r\n".join([f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""])
            connection.sendall(text.encode())

    def take(self):
        """Wait for the next request and return all that came."""
        assert self.came.acquire(timeout=PATIENCE), "nothing came"
        return self.requests


@pytest.fixture
def target():
    """Give a target; its `url` is where it is."""
    made = Target()
    with script(made.act) as (url, _):
        made.url = url
        yield made
        if made.hold is not None:
            made.hold.set()


@pytest.fixture(scope="session")
def key(tmp_path_factory):
    """Give the path of a key: to make one takes longer than most tests."""
    path = str(tmp_path_factory.mktemp("key") / "key.pem")
    Tokens("", path)
    return path


@pytest.fixture
def serve(file_database, target, key):
    """Give a context manager that runs a server with more options."""

    @contextmanager
    def serve(**options):
        options.setdefault("services", {"default": target.url})
        options.setdefault("key", key)
        options.setdefault("locations", frozenset({Location("demo", "here")}))
        server = Server(Options(alias=file_database, threads=4, grace=2.0, **options))
        server.start()
        try:
            yield server
        finally:
            server.stop(0.0)

    return serve


@pytest.fixture
def server(serve):
    """Give a running server."""
    with serve() as server:
        yield server


@pytest.fixture
def client(server):
    """Give the official client of the server."""
    with make_client(server.port) as client:
        yield client


@pytest.fixture
def queue(client):
    """Give the name of a queue that tries again at once."""
    created = client.create_queue(
        parent=PARENT,
        queue={
            "name": f"{PARENT}/queues/quick",
            "retry_config": {"min_backoff": "0s", "max_backoff": "0s", "max_attempts": 5},
        },
    )
    return created.name
