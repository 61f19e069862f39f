"""`tasks serve` and its like as processes: ready, killed, stopped, misused."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.engine.running import ROOT, started_processes, until
from tests.engine.server.clients import make_client
from tests.engine.server.conftest import PARENT

READY = re.compile(
    r"soc_tasks server ready: TASKS_EMULATOR_HOST=127\.0\.0\.1:(\d+) keys=(http://127\.0\.0\.1:\d+/certs)"
)
ALONE = ("-m", "soc_tasks.engine.server")
IN_A_SITE = ("-m", "django", "tasks", "serve")


@pytest.fixture
def start(tmp_path):
    """Start a server on one file, and wait until it is ready; kill what is left at the end."""
    with started_processes() as start_process:

        def start(*arguments, how=ALONE, ready=True):
            given = ("--port", "0", "--database", str(tmp_path / "tasks.db"), *arguments)
            process = start_process(*how, *given, ready=ready, cwd=tmp_path, ENGINE_DATABASE=tmp_path / "site.db")
            if ready:
                process.port = int(READY.match(process.lines[0])[1])
            return process

        yield start


@pytest.mark.parametrize("how", [ALONE, IN_A_SITE], ids=["alone", "in a site"])
def test_tasks_survive_a_kill(start, target, how):
    """What waits is kept, and what was under way is called again."""
    arguments = ("--project", "demo", "--location", "here", "--queue", "quick")
    first = start(*arguments, how=how)
    queue = f"{PARENT}/queues/quick"
    target.hold = threading.Event()
    soon = datetime.now(UTC) + timedelta(hours=1)
    with make_client(first.port) as client:
        names = [
            client.create_task(parent=queue, task={"http_request": {"url": target.url}, **more}).name
            for more in ({}, {"schedule_time": soon})
        ]
        target.take()
        first.kill()
        first.wait(30)
    target.hold.set()
    second = start(*arguments, how=how)
    with make_client(second.port) as client:
        [request] = target.take()[1:]
        assert request.headers["X-CloudTasks-TaskName"] == names[0].rpartition("/")[2]
        # Nobody can tell whether the target had it: an attempt that was cut short is not counted.
        assert request.headers["X-CloudTasks-TaskRetryCount"] == "0"
        until(lambda: len(list(client.list_tasks(parent=queue))) == 1)
        assert client.get_task(name=names[1]).schedule_time == soon
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 0


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


def test_it_ends_when_attempts_have(start, target):
    process = start("--project", "demo", "--location", "here", "--queue", "quick")
    target.hold = threading.Event()
    queue = f"{PARENT}/queues/quick"
    with make_client(process.port) as client:
        client.create_task(parent=queue, task={"http_request": {"url": target.url}})
        target.take()
        process.send_signal(signal.SIGTERM)
        until(lambda: refuses(process.port))
    target.hold.set()
    assert process.wait(30) == 0
    assert not any("will run again" in line for line in process.errors)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--app-engine-url", "ftp://x"), "must begin with http"),
        (("--service", "http://x"), "NAME=URL"),
        (("--queue", "a_b"), "Queue name must be formatted"),
        (("--key", __file__), "holds no RSA key"),
        (("--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_is_said(start, arguments, said):
    process = start(*arguments, ready=False)
    assert process.wait(30) == 2
    until(lambda: any(said in line for line in process.errors))


def test_a_port_that_is_taken(start):
    first = start()
    second = start("--port", str(first.port), "--keys-port", "0", ready=False)
    assert second.wait(30) == 2
    until(lambda: any(f"cannot listen on 127.0.0.1:{first.port}" in line for line in second.errors))


@pytest.mark.parametrize("how", [ALONE, IN_A_SITE], ids=["alone", "in a site"])
def test_a_second_server_on_the_database_is_refused_until_the_first_is_dead(start, how):
    first = start("--queue", "quick", how=how)
    second = start("--queue", "other", how=how, ready=False)
    assert second.wait(30) == 2
    said = f"Another server works on this database, with process id {first.pid}, and there can be one only"
    until(lambda: any(said in line for line in second.errors))
    # It has not touched anything, and the first one works on.
    with make_client(first.port) as client:
        parent = "projects/demo/locations/us-central1"
        assert [queue.name.rpartition("/")[2] for queue in client.list_queues(parent=parent)] == ["quick"]
    first.kill()
    first.wait(30)
    third = start(how=how)
    assert any(f"process id {first.pid} is dead" in line for line in third.errors)
    third.send_signal(signal.SIGTERM)
    assert third.wait(30) == 0
    # One that ended by itself leaves nothing behind.
    fourth = start(how=how)
    assert not any("is dead" in line for line in fourth.errors)


def test_other_machines_are_warned_of(start):
    process = start("--host", "0.0.0.0", ready=False)
    until(lambda: process.lines)
    assert any("reached from other machines" in line for line in process.errors)


def test_a_site_without_tables(start, tmp_path):
    process = subprocess.run(
        [sys.executable, *IN_A_SITE, "--port", "0"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.engine.settings",
            "ENGINE_DATABASE": str(tmp_path / "site.db"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "manage.py migrate" in process.stderr
