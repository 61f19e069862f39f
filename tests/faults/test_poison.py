"""Tasks that end their process, and views that never answer: they are given up, and nobody else is harmed."""

from __future__ import annotations

import signal

import pytest
from django.db import connections

from soc_tasks import BackendUnavailableError, RetryOptions, startTask, startTasks
from soc_tasks.state import get_state
from tests.engine.running import until
from tests.faults.site import BATCH
from tests.faults.vendors import ALL, SERVERS, on

pytestmark = pytest.mark.requires("sigkill")

WAYS = ("exit", "signal", "address", "memory")


def letters():
    """Return (path, attempts, error) of the dead letters."""
    return sorted((letter.task.path, letter.attempts, letter.error_type) for letter in get_state().list_dead_letters())


def start_neighbours(site, number):
    startTasks(
        {"url": "note", "context": {"file": site.file, "name": f"n{index}", "seconds": 0.005}}
        for index in range(number)
    )


@on(*ALL, long=SERVERS)
def test_several_poison_tasks_at_one_time(site):
    """Each is blamed for its own three crashes; the neighbours are done, and none was given up."""
    start_neighbours(site, 20)
    for way in WAYS[:3]:
        startTask("poison", {"file": site.file, "name": way, "way": way})
    start_neighbours(site, 20)
    worker = site.drain("--processes", 2, "--threads", 4, timeout=120)
    began = site.noted("began")
    for way in WAYS[:3]:
        # Alone three times; among others as often as one of the three took all down.
        assert 3 <= began[way] <= 6
    assert set(site.noted("ended")) == {f"n{index}" for index in range(20)}
    assert letters() == [("/poison", 0, "ProcessDied")] * 3
    assert len(worker.log("ended its process 3 times and was given up")) == 3


@pytest.mark.parametrize(
    "way", ["address", *(pytest.param(way, marks=pytest.mark.long) for way in ("exit", "signal", "memory"))]
)
def test_three_crashes_alone_are_the_end(site, way):
    startTask("poison", {"file": site.file, "name": way, "way": way})
    site.drain("--processes", 2, "--threads", 2)
    # One among others, which blames nobody, and three alone.
    assert site.noted("began") == {way: 4}
    assert letters() == [("/poison", 0, "ProcessDied")]


def test_neighbours_of_one_claim_are_done_and_unharmed(site):
    """They were claimed together: what had not ended runs again, uncounted."""
    startTask("poison", {"file": site.file, "name": "bad", "way": "signal"})
    startTasks({"url": "effect", "context": {"name": f"e{index}"}} for index in range(50))
    site.drain("--processes", 2, "--threads", 4)
    assert site.effects() == {f"e{index}": 1 for index in range(50)}
    assert letters() == [("/poison", 0, "ProcessDied")]


def test_memory_that_is_not_there_is_an_error_and_no_end(site):
    startTask("gorge", {"file": site.file})
    start_neighbours(site, 5)
    worker = site.drain("--processes", 2, "--threads", 2)
    assert letters() == [("/gorge", 1, "MemoryError")]
    assert not worker.log("ended with")
    assert len(site.noted("ended")) == 5


@on(*ALL, long=SERVERS)
def test_a_slice_is_blamed_only_for_the_batch_that_it_stands_before(site):
    """Two batches went well: the crash in the third is the first of four."""
    site.fill(5 * BATCH)
    pk = 2 * BATCH + 1
    iteration = startTask("poison-late", {"file": site.file, "pk": pk}).iteration
    start_neighbours(site, 10)
    site.drain("--processes", 2, "--threads", 2, timeout=120)
    rows = site.noted("row")
    assert [rows[str(number + 1)] for number in range(2 * BATCH)] == [1] * 2 * BATCH
    # Among others it had got further than when it began; then alone, three times without.
    assert rows[str(pk)] == 4
    assert str(pk + 1) not in rows
    assert site.status(iteration) == "failed"
    assert site.done(iteration) == 2 * BATCH
    ((path, _, error),) = letters()
    assert (path, error) == ("/poison-late", "ProcessDied")
    assert len(site.noted("ended")) == 10


@on(*ALL)
def test_a_view_that_hangs_is_abandoned_and_the_others_go_on(site):
    startTask("hang", {"file": site.file, "name": "hung"}, dispatch_deadline=0.3)
    start_neighbours(site, 20)
    worker = site.work("--processes", 2, "--threads", 2)
    before = set(site.pids())
    until(lambda: set(site.noted("ended")) == {f"n{index}" for index in range(20)})
    until(lambda: site.store.list_tasks() == [])
    until(lambda: len(set(site.pids())) == 2 and set(site.pids()) != before)
    # Who is new works as well.
    startTask("note", {"file": site.file, "name": "after"})
    until(lambda: site.noted("ended")["after"])
    assert worker.stop(signal.SIGTERM) == 0
    assert letters() == [("/hang", 1, "DeadlineExceeded")]
    assert len(worker.log("hang of queue") + worker.log("outlived its deadline")) >= 1
    assert not worker.log("ended with")


def test_a_hung_view_that_holds_sqlites_lock_is_told_as_a_timeout(site):
    site.fill(1)
    connections.settings[site.alias]["OPTIONS"]["timeout"] = 0.1
    startTask("hang-locked", {"file": site.file, "name": "held"}, dispatch_deadline=0.3)
    worker = site.work("--processes", 2, "--threads", 1)
    until(lambda: worker.log("outlived its deadline"))
    start_when_free(site)
    until(lambda: site.noted("ended")["after"])
    until(lambda: site.store.list_tasks() == [])
    assert worker.stop(signal.SIGTERM) == 0
    assert letters() == [("/hang-locked", 1, "DeadlineExceeded")]


@on(*ALL)
def test_a_batch_that_hangs_in_its_transaction_keeps_nobody(site):
    """It holds its shard's row, which its dead letter must fail."""
    site.fill(2 * BATCH)
    connections.settings[site.alias]["OPTIONS"].update({"timeout": 0.1} if site.server is None else {})
    once = RetryOptions(max_attempts=1)
    iteration = startTask("hang-count", {"file": site.file}, dispatch_deadline=0.5, retry_options=once).iteration
    worker = site.work("--processes", 2, "--threads", 2)
    until(lambda: worker.log("outlived its deadline"))
    start_when_free(site)
    until(lambda: site.noted("ended")["after"])
    try:
        until(lambda: site.status(iteration) == "failed")
    finally:
        assert letters() == [("/hang-count", 1, "DeadlineExceeded")]
    assert worker.stop(signal.SIGTERM) == 0
    assert site.hits() == {0: 2 * BATCH}


def start_when_free(site):
    """Enqueue as soon as the lock is free."""

    def enqueue():
        try:
            return startTask("note", {"file": site.file, "name": "after"})
        except BackendUnavailableError:
            return None

    until(enqueue)
