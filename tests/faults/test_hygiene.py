"""What workers leave behind: no file that nobody closed, no connection more than they have threads."""

from __future__ import annotations

import signal
import threading

import pytest

from soc_tasks import startTask, startTasks
from tests.engine.running import until
from tests.faults.site import BATCH
from tests.faults.vendors import ALL, SERVERS, on

pytestmark = pytest.mark.requires("sigkill")

THREADS = 8


@on(*ALL)
@pytest.mark.parametrize("processes", [2, pytest.param(1, marks=pytest.mark.long)])
def test_nothing_is_left_open(site, processes):
    site.fill(10 * BATCH)
    startTask("count")
    startTasks({"url": "effect", "context": {"name": f"e{number}"}} for number in range(50))
    # -X dev shows what is collected while it is open, and errors in what nobody waits for.
    worker = site.drain("--processes", processes, "--threads", 4, python=("-W", "error", "-X", "dev"))
    assert len(site.effects()) == 50
    complaints = [line for line in worker.errors if "Warning" in line or "Exception ignored" in line or "Error" in line]
    assert complaints == [], "".join(worker.errors)


def count_connections(site):
    """Return how many connections the server has of this database, but for the one that asks."""
    if site.server.user == "postgres":
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    else:
        sql = "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    ((number,),) = site.store.select(sql)
    return number


@on(*SERVERS)
def test_connections_are_bounded(site, note_figure, request):
    before = count_connections(site)
    worker = site.work("--processes", 1, "--threads", THREADS)
    startTasks({"url": "effect", "context": {"name": f"e{number}"}} for number in range(1000))
    most, pause = 0, threading.Event()
    while len(site.effects()) < 1000:
        most = max(most, count_connections(site) - before)
        pause.wait(0.05)
    most = max(most, count_connections(site) - before)
    # One for each thread, the engine, the upkeep, and where the server can tell of new tasks, who hears that.
    assert THREADS // 2 < most <= THREADS + 3
    until(lambda: site.store.list_tasks() == [])
    assert worker.stop(signal.SIGTERM) == 0
    until(lambda: count_connections(site) <= before)
    note_figure(request.node.callspec.params["engine_database"], "connections", threads=THREADS, most=most, tasks=1000)
