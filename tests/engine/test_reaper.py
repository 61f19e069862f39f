"""Who is dead: by change, on the observer's own clock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from soc_tasks.engine.clock import FakeClock
from soc_tasks.engine.processes import born, is_gone, this_host
from soc_tasks.engine.reaper import Reaper
from soc_tasks.engine.records import WorkerRecord

LEASE = 30.0


def record(number=1, beats=0, host="elsewhere", pid=10, started=1):
    return WorkerRecord(number, host, pid, started, 0, 0, beats)


def reaper(clock, gone=lambda pid, started: False):
    return Reaper(clock, LEASE, "here", gone)


def watch(reaper, clock, seconds, *records, step=1.0):
    """Look every second; return after how many seconds the first was dead."""
    for second in range(int(seconds / step)):
        if reaper.find_dead(records):
            return second * step
        clock.advance(step)
    return None


def test_a_worker_that_stands_still_for_a_lease_is_dead():
    clock = FakeClock()
    assert watch(reaper(clock), clock, 100, record()) == LEASE


def test_a_worker_that_beats_lives():
    clock = FakeClock()
    subject = reaper(clock)
    for beats in range(100):
        assert subject.find_dead([record(beats=beats // 10)]) == []
        clock.advance(1)


def test_an_observer_that_was_stopped_grants_another_lease():
    clock = FakeClock()
    subject = reaper(clock)
    assert watch(subject, clock, 25, record()) is None
    clock.advance(LEASE)
    assert watch(subject, clock, 100, record()) == LEASE


def test_an_observer_that_waited_for_the_database_grants_another_lease():
    clock = FakeClock()
    subject = reaper(clock)
    assert watch(subject, clock, 29, record()) is None
    subject.forget()
    assert watch(subject, clock, 100, record()) == LEASE


def test_wall_clocks_do_not_matter():
    clock = FakeClock()
    subject = reaper(clock)
    assert watch(subject, clock, 10, record()) is None
    clock.set_back(-3600)
    assert watch(subject, clock, 10, record()) is None
    clock.set_back(7200)
    assert watch(subject, clock, 20, record()) == LEASE - 20


def test_a_process_of_this_machine_that_ended_is_dead_at_once():
    clock = FakeClock()
    subject = reaper(clock, gone=lambda pid, started: pid == 11)
    records = [record(1, host="here", pid=10), record(2, host="here", pid=11), record(3, host="elsewhere", pid=11)]
    assert [dead.id for dead in subject.find_dead(records)] == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="names and births are read from /proc")
def test_a_name_may_be_any_bytes(tmp_path):
    program = tmp_path / os.fsdecode(b"\xff) 1 (\xfe")
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "60"])
    try:
        assert born(process.pid) >= born(os.getpid()) > 0
    finally:
        process.kill()
        process.wait()


def test_a_process_is_told_by_number_and_birth():
    own = os.getpid()
    assert not is_gone(own, born(own))
    assert not is_gone(own, 0)
    assert is_gone(own, born(own) + 1) is (born(own) > 0)
    child = subprocess.Popen([sys.executable, "-c", ""])
    since = born(child.pid)
    child.wait()
    assert is_gone(child.pid, since)
    assert this_host() == this_host()
