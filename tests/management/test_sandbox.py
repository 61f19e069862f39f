"""`tasks sandbox`: processes that work together and end together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.engine.running import ROOT, until
from tests.engine.server.clients import make_client

READY = re.compile(r"soc_tasks sandbox ready: site=(http://127\.0\.0\.1:\d+) TASKS_EMULATOR_HOST=127\.0\.0\.1:(\d+) ")
QUEUE = "projects/demo/locations/local/queues/default"
#: The site; its answer is changed to see that it starts anew.
SITE = """
import os
from django.http import HttpResponse
from django.urls import path
from soc_tasks import startTask, task

def start(request):
    startTask("note", {"word": "first"})
    return HttpResponse("first")

@task
def note(request):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(request.task.context["word"] + "\\n")

urlpatterns = [path("start/", start), path("note/", note, name="note")]
"""


@pytest.fixture
def sandbox(tmp_path, empty_database):
    """Start `tasks sandbox` on a site in a folder, and wait until it is ready; kill what is left at the end."""
    started = []
    (tmp_path / "mysite.py").write_text(SITE)
    (tmp_path / "site.db").write_bytes(empty_database.read_bytes())

    def start(*arguments, ready=True):
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "tasks", "sandbox", "0", "--server-port", "0", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
                "DJANGO_SETTINGS_MODULE": "tests.engine.settings",
                "ENGINE_DATABASE": str(tmp_path / "site.db"),
                "ENGINE_BACKEND": "cloud_tasks",
                "ENGINE_URLS": "mysite",
                "NOTES": str(tmp_path / "notes"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        process.lines = []
        process.reader = threading.Thread(target=process.lines.extend, args=(process.stdout,), daemon=True)
        process.reader.start()
        if ready:
            until(lambda: find_ready(process) or process.poll() is not None, timeout=60)
            assert find_ready(process), "".join(process.lines)
            process.url, process.port = find_ready(process).groups()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(30)
    until(lambda: not find_processes(tmp_path))
    for process in started:
        process.reader.join(30)
        process.stdout.close()


def find_ready(process):
    return next((match for line in list(process.lines) if (match := READY.match(line))), None)


def find_processes(tmp_path):
    """Return the command lines of all processes that work for a test, by number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"NOTES={tmp_path / 'notes'}".encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended, or is another user's
            continue
    return found


def get(url):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.requires("sigkill")
def test_tasks_run_and_the_site_starts_anew_with_its_code(sandbox, tmp_path):
    process = sandbox()
    assert get(f"{process.url}/start/") == "first"
    notes = tmp_path / "notes"
    until(lambda: notes.exists() and notes.read_text() == "first\n")
    (tmp_path / "mysite.py").write_text(SITE.replace("first", "second"))

    def is_new():
        try:
            return get(f"{process.url}/start/") == "second"
        except OSError:  # between the one and the other
            return False

    until(is_new, timeout=60)
    until(lambda: notes.read_text().endswith("second\n"))
    for name in ("server", "relay ", "site  "):
        assert any(line.startswith(f"{name} | ") for line in process.lines)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    until(lambda: not find_processes(tmp_path))


@pytest.mark.requires("sigkill")
def test_killed_it_leaves_nothing_behind_but_its_tasks(sandbox, tmp_path):
    process = sandbox("--noreload")
    soon = datetime.now(UTC) + timedelta(hours=1)
    with make_client(process.port) as client:
        # The queue is there before the first task.
        client.create_task(parent=QUEUE, task={"http_request": {"url": process.url}, "schedule_time": soon})
    assert len(find_processes(tmp_path)) == 4
    process.kill()
    until(lambda: not find_processes(tmp_path))
    for arguments, left in (((), 1), (("--fresh",), 0)):
        process = sandbox("--noreload", *arguments)
        with make_client(process.port) as client:
            assert len(list(client.list_tasks(parent=QUEUE))) == left
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    until(lambda: not find_processes(tmp_path))


@pytest.mark.requires("sigkill")
@pytest.mark.parametrize(("name", "command"), [("server", "engine.server"), ("site", "runserver")])
def test_when_one_ends_all_do(sandbox, tmp_path, name, command):
    process = sandbox()
    # Under autoreload the site has two processes: the one that the sandbox has started is killed.
    (victim,) = (pid for pid, line in find_processes(tmp_path).items() if command in line and os.getsid(pid) == pid)
    os.kill(victim, signal.SIGKILL)
    assert process.wait(30) == 1
    process.reader.join(30)
    assert f"The {name} ended by itself, with signal SIGKILL. The end of its log:" in "".join(process.lines)
    until(lambda: not find_processes(tmp_path))


def test_a_server_that_cannot_start_is_shown(sandbox, tmp_path):
    process = sandbox("--database", str(tmp_path / "nowhere" / "tasks.db"), ready=False)
    assert process.wait(60) == 1
    process.reader.join(30)
    assert "The server ended by itself" in "".join(process.lines)
    assert "unable to open database file" in "".join(process.lines)


@pytest.mark.parametrize(("backend", "hint"), [("embedded", "manage.py runserver"), ("memory", "set that")])
def test_other_backends_are_refused_with_a_hint(settings, backend, hint):
    settings.SOC_TASKS = {"BACKEND": backend}
    with pytest.raises(CommandError, match=hint):
        call_command("tasks", "sandbox")


def test_a_port_that_is_taken(settings):
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CommandError, match="cannot listen"):
        call_command("tasks", "sandbox", str(taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--service", "http://x"), "NAME=URL"),
        (("--service", "mail=ftp://x"), "must begin with http"),
        (("--relay-every", "0"), "--relay-every"),
        (("70000",), "port"),
    ],
)
def test_nonsense_is_refused(settings, arguments, said):
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
    with pytest.raises(CommandError, match=said):
        call_command("tasks", "sandbox", *arguments)
