"""SIGTERM in the middle of a load: a quick end, nothing repeated that had ended, nothing lost."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time

import pytest

from soc_tasks import RetryOptions, startTask, startTasks
from tests.engine.running import until
from tests.faults.vendors import ALL, SERVERS, on

pytestmark = pytest.mark.requires("sigkill")

#: Seconds that tasks get, and that they take.
GRACE, TASK = 5.0, 0.02
ROWS, TASKS = 600, 60


@on("sqlite")
@pytest.mark.parametrize(("stops", "processes"), [(5, 2), (2, 1)])
def test_stops_under_load(site, stops, processes, note_figure):
    stop_again_and_again(site, stops, processes, note_figure, "sqlite")


@on(*SERVERS)
def test_stops_under_load_on_servers(site, note_figure, request):
    stop_again_and_again(site, 2, 2, note_figure, request.node.callspec.params["engine_database"])


@pytest.mark.long
@on(*ALL)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_hundred_stops(site, processes, note_figure, request):
    stop_again_and_again(site, 100, processes, note_figure, request.node.callspec.params["engine_database"])


def stop_again_and_again(site, stops, processes, note_figure, vendor):
    """Stop workers in the middle of their work, and see what was repeated or lost."""
    chance, pause = random.Random(stops * 10 + processes), threading.Event()
    once = RetryOptions(max_attempts=1)
    took, statuses = [], []
    iterations = []
    site.fill(ROWS)
    for stop in range(stops):
        if not iterations or site.status(iterations[-1]) == "succeeded":
            # The file tells the rows of one iteration from those of another.
            context = {"file": f"{site.file}-{len(iterations)}", "seconds": 0.01}
            iterations.append(startTask("visit", context).iteration)
        names = [f"{stop}-{number}" for number in range(TASKS)]
        startTasks(
            {"url": "note", "context": {"file": site.file, "name": name, "seconds": TASK}, "retry_options": once}
            for name in names
        )
        began = len(site.notes())
        worker = site.work("--processes", processes, "--threads", 4, "--grace", GRACE)
        until(lambda began=began: len(site.notes()) > began)
        pause.wait(chance.uniform(0, 0.3))
        start = time.monotonic()
        statuses.append(worker.stop(signal.SIGTERM, timeout=GRACE + 1))
        took.append(time.monotonic() - start)
        assert site.store.list_workers() == []
        assert {record.state for record in site.store.list_tasks(limit=10_000)} <= {"waiting"}
    site.drain(timeout=300)
    # Nothing was cut off.
    assert set(statuses) == {0}
    expected = {f"{stop}-{number}": 1 for stop in range(stops) for number in range(TASKS)}
    assert site.noted("began") == expected
    assert site.noted("ended") == expected
    for number, iteration in enumerate(iterations):
        assert site.status(iteration) == "succeeded"
        assert site.noted("row", f"{site.file}-{number}") == {str(pk + 1): 1 for pk in range(ROWS)}
    note_figure(
        vendor,
        "SIGTERM",
        stops=stops,
        processes=processes,
        median=f"{statistics.median(took):.2f}s",
        longest=f"{max(took):.2f}s",
        repeated=0,
        lost=0,
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_what_outlives_the_grace_is_told_by_the_exit_status(site, processes):
    startTask("hang", {"file": site.file, "name": "long"})
    worker = site.work("--processes", processes, "--threads", 1, "--grace", 0.5)
    until(lambda: site.noted("began"))
    # It never ends, and the process does: as one whose tasks were cut off.
    assert worker.stop(signal.SIGTERM, timeout=0.5 + 1 + 1) == 1
    (record,) = site.store.list_tasks()
    assert (record.state, record.attempts) == ("waiting", 0)
