"""The disk is full, on SQLite: an error for who enqueues, patience of the worker, and nothing lost or doubled after."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3

import pytest
from django.db import connections
from django.db.backends.signals import connection_created

from soc_tasks import BackendUnavailableError, startTask
from tests.engine.running import until
from tests.faults.site import BATCH

ROWS = 60 * BATCH


def check_whole(site):
    """See that the database is whole."""
    connection = sqlite3.connect(site.database["NAME"])
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


class Pages:
    """A limit to the pages of a database, on all connections of this process."""

    def __init__(self, alias):
        self.alias = alias
        #: Whether it may grow no more.
        self.full = False

    def __call__(self, sender, connection, **_):
        if connection.alias == self.alias:
            connection.execute_wrappers.append(self.limit)

    def limit(self, execute, sql, parameters, many, context):
        raw = context["connection"].connection
        raw.execute(f"PRAGMA max_page_count = {1 if self.full else 2**31 - 2}")
        return execute(sql, parameters, many, context)


@pytest.fixture
def pages(site):
    pages = Pages(site.alias)
    connections[site.alias].close()
    connection_created.connect(pages, weak=False, dispatch_uid=pages)
    yield pages
    connection_created.disconnect(dispatch_uid=pages)
    connections[site.alias].execute_wrappers.clear()


def test_no_page_is_left(site, pages, running_worker, note_figure):
    site.fill(ROWS)
    iteration = startTask("count", {"seconds": 0.002}).iteration
    running_worker()
    until(lambda: site.done(iteration))
    accepted, refused = [], []

    def enqueue():
        name = f"w{len(accepted) + len(refused)}"
        try:
            startTask("effect", {"name": name, "weight": "x" * 20_000})
        except BackendUnavailableError as error:
            refused.append(str(error))
        else:
            accepted.append(name)

    enqueue()
    pages.full = True
    # Pages that are free already are used up first.
    until(lambda: enqueue() or len(refused) >= 5)
    pages.full = False
    enqueue()
    why = "The task could not be written to the database 'engine_database': database or disk is full."
    assert set(refused) == {why}
    until(lambda: site.status(iteration) == "succeeded")
    until(lambda: site.store.list_tasks() == [])
    effects = site.effects()
    assert set(effects) == set(accepted)
    assert set(effects.values()) == {1}
    assert site.hits() == {1: ROWS}
    check_whole(site)
    note_figure("sqlite", "SQLITE_FULL", accepted=len(accepted), refused=len(refused), lost=0, doubled=0)


@pytest.mark.requires("sigkill")
def test_no_file_may_grow(site, note_figure):
    site.fill(ROWS)
    worker = site.work("--processes", 2, "--threads", 2)
    pids = site.pids()
    iteration = startTask("count", {"seconds": 0.002}).iteration
    web = site.start("tests.faults.web", "w")
    until(lambda: site.effects() and site.done(iteration))
    connections[site.alias].close()
    files = [site.database["NAME"], f"{site.database['NAME']}-wal"]
    before = {}
    for pid in (*pids, web.pid):
        before[pid] = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        # The log of SQLite begins anew now and then, so that not all that is written needs more room.
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(map(os.path.getsize, files)) // 2, before[pid][1]))
    until(lambda: web.count("refused") >= 5, timeout=60)
    until(lambda: worker.log("is not to be had"))
    for pid, limits in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    told = web.count("accepted")
    until(lambda: web.count("accepted") > told)
    web.popen.stdin.close()
    assert web.popen.wait(60) == 0, "".join(web.errors)
    web.join()
    until(lambda: site.status(iteration) == "succeeded", timeout=60)
    until(lambda: site.store.list_tasks() == [], timeout=60)
    assert site.pids() == pids
    assert worker.stop(signal.SIGTERM) == 0
    assert not worker.log("ended with")
    accepted = {line.split()[1] for line in web.lines if line.startswith("accepted")}
    refused = {line.split()[1]: line for line in web.lines if line.startswith("refused")}
    assert all("could not be written to the database 'default': disk I/O error" in line for line in refused.values())
    effects = site.effects()
    assert accepted <= set(effects) <= accepted | set(refused)
    assert set(effects.values()) == {1}
    assert site.hits() == {1: ROWS}
    check_whole(site)
    note_figure("sqlite", "RLIMIT_FSIZE", accepted=len(accepted), refused=len(refused), lost=0, doubled=0)
