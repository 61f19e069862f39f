"""The database is locked, or its server is gone, while workers work and a web process enqueues."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time

import pytest
from django.db import connections

from soc_tasks import startTask
from tests.engine.running import until
from tests.faults.site import BATCH
from tests.faults.vendors import SERVERS, on

pytestmark = pytest.mark.requires("sigkill")

LONG = pytest.mark.long
#: Seconds in which work must go on after the database has come back.
BACK = 5.0
#: Lines about trouble that a process may write: of the engine thread, the upkeep, the checkpoints.
LINES = 3
PROCESSES, THREADS = 2, 4


def work_through(site, fault, seconds, note_figure, *label):
    """Have workers work and a web process enqueue while `fault` comes and goes; see what became of it all."""
    site.fill(80 * BATCH)
    worker = site.work("--processes", PROCESSES, "--threads", THREADS)
    pids = site.pids()
    iteration = startTask("count", {"seconds": 0.01}, queue="default").iteration
    web = site.start("tests.faults.web", "w")
    until(lambda: site.effects() and site.done(iteration))

    came = fault()
    until(lambda: web.count("refused") >= 2 or web.popen.poll() is not None, timeout=60)
    assert web.popen.poll() is None, "".join(web.errors)
    threading.Event().wait(seconds)
    told = len(web.lines)
    connections[site.alias].close()
    came()
    back = time.monotonic()
    # Any effect that was not there: from a task that waited, or from a new one.
    seen = len(site.effects())
    until(lambda: len(site.effects()) > seen, timeout=BACK)
    after = time.monotonic() - back
    until(lambda: any(line.startswith("accepted") for line in web.lines[told:]))
    web.popen.stdin.close()
    assert web.popen.wait(60) == 0, "".join(web.errors)
    web.join()
    until(lambda: site.status(iteration) == "succeeded", timeout=60)
    until(lambda: site.store.list_tasks() == [], timeout=60)

    # The same processes, as the supervisor counts them and as the database does.
    assert not worker.log("ended with")
    assert site.pids() == pids
    assert worker.stop(signal.SIGTERM) == 0
    accepted = {line.split()[1] for line in web.lines if line.startswith("accepted")}
    refused = {line.split()[1] for line in web.lines if line.startswith("refused")}
    effects = site.effects()
    # What was refused as its commit was on the way may be there all the same.
    assert accepted <= set(effects) <= accepted | refused
    assert set(effects.values()) == {1}
    assert site.hits() == {1: 80 * BATCH}
    records = check_log(worker)
    note_figure(
        *label,
        seconds=seconds,
        back_after=f"{after:.2f}s",
        accepted=len(accepted),
        refused=len(refused),
        lost=len(accepted - set(effects)),
        doubled=sum(effects.values()) - len(effects),
        records=records,
    )
    return web


def check_log(worker):
    """See that trouble was told of: once by each part of a process, once by each task that it broke, never by try."""
    records = [line for line in worker.errors if line.startswith("time=") and "event=task" not in line]
    # An attempt that met it failed, and says so with its traceback.
    broken = [line for line in records if "failed at attempt" in line]
    assert len(broken) <= PROCESSES * THREADS, "".join(broken)
    told = [line for line in records if line not in broken and "level=INFO" not in line]
    assert 1 <= len(told) <= PROCESSES * LINES, "".join(told)
    return len(broken) + len(told)


@on("sqlite")
@pytest.mark.parametrize("seconds", [2.0, pytest.param(30.0, marks=LONG)])
def test_sqlite_is_locked(site, note_figure, seconds):
    timeout = 0.3 if seconds < 10 else 20
    connections.settings[site.alias]["OPTIONS"]["timeout"] = timeout

    def lock():
        other = sqlite3.connect(site.database["NAME"], isolation_level=None, timeout=30, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")

        def free():
            other.execute("ROLLBACK")
            other.close()

        return free

    web = work_through(site, lock, seconds, note_figure, "sqlite", "locked")
    refusal = next(line for line in web.lines if line.startswith("refused"))
    assert "could not be written to the database 'default': database is locked" in refusal


@on(*SERVERS)
@pytest.mark.parametrize(
    ("way", "seconds"),
    [
        ("killed", 2.0),
        pytest.param("stopped", 2.0, marks=LONG),
        pytest.param("killed", 30.0, marks=LONG),
        pytest.param("stopped", 30.0, marks=LONG),
    ],
)
def test_the_server_is_gone(site, note_figure, seconds, way, request):
    def stop():
        site.server.stop(signal.SIGKILL if way == "killed" else signal.SIGINT)
        return site.server.start

    vendor = request.node.callspec.params["engine_database"]
    web = work_through(site, stop, seconds, note_figure, vendor, way)
    refusal = next(line for line in web.lines if line.startswith("refused"))
    assert "could not be written to the database 'default': " in refusal
