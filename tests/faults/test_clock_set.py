"""The clock is set by an hour while tasks wait, are tried again, and run; machines whose clocks are an hour apart."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from soc_tasks import startTask
from soc_tasks.engine.clock import SECOND, SystemClock
from soc_tasks.values import Answer, RetryOptions
from tests.engine.running import until
from tests.engine.tasks import make_task
from tests.faults.site import BATCH
from tests.faults.vendors import ALL, SERVERS, on

HOUR = 3600


class SetClock(SystemClock):
    """This machine's clock, as somebody sets it."""

    def __init__(self):
        self.set_by = 0

    def now(self):
        return super().now() + self.set_by * SECOND

    def moment(self, seconds=0.0):
        """Return a moment by this clock."""
        return datetime.now(UTC) + timedelta(seconds=self.set_by + seconds)


@pytest.fixture
def clock(site):
    clock = site.store.clock = SetClock()
    return clock


class Work:
    """What tasks do, and when."""

    def __init__(self):
        self.ran = []
        self.held = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.failed = threading.Event()

    def __call__(self, task, delivery):
        self.ran.append((task.name, time.monotonic()))
        if task.name.startswith("hold"):
            self.held.release()
            assert self.go_on.wait(60)
        if task.name.startswith("fail") and delivery.retry_count == 0:
            self.failed.set()
            return Answer(status=500)
        return Answer(status=200)

    def count(self, name):
        return sum(ran == name for ran, _ in self.ran)

    def times(self, name):
        return [when for ran, when in self.ran if ran == name]


@pytest.fixture
def work():
    work = Work()
    yield work
    work.go_on.set()


@on(*ALL)
@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.long)])
def test_the_clock_is_set_under_load(site, clock, work, running_worker, settings, hours, workers, note_figure, request):
    """All threads are busy; behind them wait tasks that are due, one to be tried again, and one for a moment."""
    settings.CLOUD_TASKS_QUEUES = [{"name": "slow", "rate_per_second": 20}]
    retry = RetryOptions(min_backoff=2, max_backoff=2)
    site.store.add([make_task(name="fails", retry=retry, created=clock.moment())])
    for _ in range(workers):
        running_worker(threads=1, dispatch=work)
    assert work.failed.wait(30)
    site.store.add([make_task(name=f"hold{number}", created=clock.moment()) for number in range(workers)])
    for _ in range(workers):
        assert work.held.acquire(timeout=30)
    site.store.add([make_task(name=f"due{number}", created=clock.moment()) for number in range(20)])
    site.store.add([make_task(name=f"slow{number}", queue="slow", created=clock.moment()) for number in range(60)])
    site.store.add([make_task(name="soon", created=clock.moment(), eta=clock.moment(HOUR / 2))])
    site.store.add([make_task(name="later", created=clock.moment(), eta=clock.moment(2 * HOUR))])
    leases = {record.id for record in site.store.list_workers()}

    clock.set_by += hours * HOUR
    set_at = time.monotonic()
    work.go_on.set()
    site.store.add([make_task(name="new", created=clock.moment())])
    names = ["new", *(f"due{number}" for number in range(20))]
    until(lambda: all(work.count(name) == 1 for name in names))
    took = max(when for name, when in work.ran if name in names) - set_at
    until(lambda: work.count("fails") == 2)
    first, second = work.times("fails")
    # Its two seconds, and not an hour more or less; the others leave the leader some time.
    assert 2 <= second - first < 10
    until(lambda: all(work.count(f"slow{number}") == 1 for number in range(60)))
    slow = sorted(when for name, when in work.ran if name.startswith("slow"))
    # A burst of ten to begin with, and the rate from then on.
    assert all(later - earlier > 0.9 for earlier, later in zip(slow, slow[31:], strict=False))
    if hours > 0:
        until(lambda: work.count("soon") == 1)
    kept = {"later"} if hours > 0 else {"soon", "later"}
    until(lambda: {record.task.name for record in site.store.list_tasks()} == kept)
    # No lease was lost by it.
    assert {record.id for record in site.store.list_workers()} == leases
    assert max(work.count(name) for name, _ in work.ran if name != "fails") == 1
    note_figure(
        request.node.callspec.params["engine_database"],
        f"clock {hours:+d} h",
        workers=workers,
        due_after=f"{took:.2f}s",
        retry_after=f"{second - first:.2f}s",
    )


@pytest.mark.requires("sigkill")
@on(*SERVERS, long=["mariadb"])
def test_machines_an_hour_apart_share_a_server(site):
    """One worker is an hour behind, one an hour ahead, and so is who enqueues: all go by the server's clock."""
    behind = site.start("tests.faults.skewed", -HOUR, "tasks", "run", "--processes", 1, "--threads", 2)
    ahead = site.start("tests.faults.skewed", HOUR, "tasks", "run", "--processes", 1, "--threads", 2)
    pids = site.pids()
    assert len(pids) == 2
    site.fill(20 * BATCH)
    iteration = startTask("visit", {"file": site.file, "seconds": 0.05}).iteration
    web = site.start("tests.faults.skewed", HOUR, "web", "a")
    other = site.start("tests.faults.skewed", -HOUR, "web", "b")
    countdown = time.monotonic()
    startTask("note", {"file": site.file, "name": "countdown"}, countdown=1)
    for process in (web, other):
        until(lambda process=process: process.count("accepted") >= 20)
        process.popen.stdin.close()
        assert process.popen.wait(30) == 0, "".join(process.errors)
        process.join()
    until(lambda: site.noted("ended")["countdown"])
    # The machines' notions of the server's time differ by what an answer of it takes.
    assert time.monotonic() - countdown >= 0.95
    until(lambda: site.status(iteration) == "succeeded", timeout=60)
    until(lambda: site.store.list_tasks() == [])
    accepted = {line.split()[1] for line in web.lines + other.lines if line.startswith("accepted")}
    assert site.effects() == dict.fromkeys(accepted, 1)
    # No lease was taken from anybody: each row was seen once.
    assert site.noted("row") == {str(pk + 1): 1 for pk in range(20 * BATCH)}
    assert site.pids() == pids
    for process in (behind, ahead):
        assert not process.log("silent") + process.log("is dead")
        assert process.stop(signal.SIGTERM) == 0
