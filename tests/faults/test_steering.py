"""Pause, resume and cancel from another process than the one that works, and across workers that are replaced."""

from __future__ import annotations

import signal
import time

import pytest

from soc_tasks import Iteration, startTask
from soc_tasks.state import get_state
from tests.engine.running import until
from tests.faults.vendors import SERVERS, on

pytestmark = pytest.mark.requires("sigkill")

ROWS, SECONDS = 300, 0.01


def steer_across_a_deploy(site, note_figure, vendor):
    site.fill(ROWS)
    iteration = startTask("visit", {"file": site.file, "seconds": SECONDS}).iteration
    old = site.work()
    until(lambda: site.done(iteration) > 0)
    Iteration.get(iteration).pause()
    paused = time.monotonic()
    # Its batch ends; within a second of that nobody holds a shard any more.
    until(lambda: not any(shard.owner for shard in shards(site, iteration)))
    took = time.monotonic() - paused
    assert took < 1 + SECONDS
    # A deploy: the worker ends, another one comes, and it stays paused.
    assert old.stop(signal.SIGTERM) == 0
    done = site.done(iteration)
    assert len(site.notes()) == done < ROWS
    assert site.status(iteration) == "paused"
    site.drain()
    assert (site.status(iteration), site.done(iteration)) == ("paused", done)
    Iteration.get(iteration).resume()
    site.drain()
    assert (site.status(iteration), site.done(iteration)) == ("succeeded", ROWS)
    assert site.noted("row") == {str(pk + 1): 1 for pk in range(ROWS)}
    note_figure(vendor, "pause", seconds=round(took, 3))


def shards(site, iteration):
    return get_state().list_shards(iteration)


@on("sqlite")
def test_a_pause_survives_a_deploy(site, note_figure):
    steer_across_a_deploy(site, note_figure, "sqlite")


@on(*SERVERS)
def test_a_pause_survives_a_deploy_on_servers(site, note_figure, request):
    steer_across_a_deploy(site, note_figure, request.node.callspec.params["engine_database"])


@on("sqlite")
def test_a_cancel_reaches_the_worker_of_another_process(site):
    site.fill(ROWS)
    iteration = startTask("visit", {"file": site.file, "seconds": SECONDS}).iteration
    worker = site.work()
    until(lambda: site.done(iteration) > 0)
    Iteration.get(iteration).cancel()
    until(lambda: not any(shard.owner for shard in shards(site, iteration)))
    assert worker.stop(signal.SIGTERM) == 0
    done = site.done(iteration)
    assert done < ROWS
    site.drain()
    assert (site.status(iteration), site.done(iteration)) == ("cancelled", done)
    assert sum(site.noted("row").values()) == done
