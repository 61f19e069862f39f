"""Workers: `tasks run` in processes of its own (the fixtures `run` and `ran`, for conftest), and in threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connections

from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from tests.engine.tasks import make_task

ROOT = Path(__file__).resolve().parents[2]
LEASE = 0.5
#: Seconds in which a process does what it is to do, on a machine with ten times as much to do.
PATIENCE = 120


def until(condition, timeout=PATIENCE):
    """Wait for a condition."""
    waiter, left = threading.Event(), timeout / 0.005
    while not condition():
        waiter.wait(0.005)
        left -= 1
        assert left > 0, "it did not happen in time"


@pytest.fixture
def ran(tmp_path):
    """The file in which tasks note that they ran; `ran()` gives (task, process) pairs."""
    path = tmp_path / "ran"

    def read():
        return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []

    read.path = path
    return read


@contextmanager
def started_processes():
    """Give a function that starts Python with arguments; its lines are read all along. Kill what is left at the end."""
    started = []

    def start(*arguments, ready=True, cwd=ROOT, **environment):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            cwd=cwd,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DJANGO_SETTINGS_MODULE": "tests.engine.settings",
                **{name: str(value) for name, value in environment.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        # Read all along, so that the process never waits for its reader.
        process.lines, process.errors = [], []
        for stream, lines in ((process.stdout, process.lines), (process.stderr, process.errors)):
            threading.Thread(target=lambda s=stream, to=lines: to.extend(s), daemon=True).start()
        if ready:
            until(lambda: process.lines or process.poll() is not None)
            assert process.lines, "".join(process.errors)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait(30)
        for process in started:
            process.stdout.close()
            process.stderr.close()


@pytest.fixture
def run(file_database):
    """Start `tasks run` and wait until it is ready; kill what is left at the end, and wait for its children."""
    with started_processes() as start:

        def run(*arguments, **options):
            database = connections[file_database].settings_dict["NAME"]
            options = {"ENGINE_DATABASE": database, "ENGINE_LEASE": LEASE, **options}
            return start("-m", "django", "tasks", "run", *arguments, **options)

        yield run
    until(lambda: not any(is_alive(int(record.pid)) for record in get_store(file_database).list_workers()))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def note(ran, name, **fields):
    """A task that notes that it ran."""
    return make_task(fields.pop("path", "/count"), body=f"{ran.path}\n{name}".encode(), name=name, **fields)


@contextmanager
def worker_threads(alias):
    """Give a function that starts a worker in a thread of this process; stop them all at the end."""
    started = []

    def start(**options):
        ready = threading.Event()
        worker = Worker(alias, ready=ready.set, **options)
        thread = threading.Thread(target=worker.run, daemon=True)
        started.append((worker, thread))
        thread.start()
        assert ready.wait(10)
        return worker

    try:
        yield start
    finally:
        for worker, _ in started:
            worker.stop()
        for _, thread in started:
            thread.join(30)
            assert not thread.is_alive()
