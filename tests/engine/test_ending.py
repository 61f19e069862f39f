"""When a worker ends, decided without one."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from soc_tasks.engine import ending as module
from soc_tasks.engine.ending import JITTER, MIB, NO_LIMITS, Ending, Limits, Recycling, measure_memory
from tests.engine.running import ROOT


def plain(low, high):
    return (low + high) / 2


@pytest.fixture
def now(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_limits_there_is_no_reason():
    recycling = Recycling(NO_LIMITS)
    recycling.count()
    assert recycling.fit(200, 50) == 200
    assert recycling.find_reason(0.0) is None


def test_no_more_is_claimed_than_the_limit_leaves():
    recycling = Recycling(Limits(tasks=3), spread=plain)
    assert recycling.fit(200, 0) == 3
    recycling.count()
    assert recycling.fit(200, 1) == 1
    assert recycling.fit(200, 2) == 0
    assert recycling.find_reason(0.0) is None
    recycling.count()
    recycling.count()
    assert recycling.fit(200, 0) == 0
    assert recycling.find_reason(0.0) == "it has run 3 tasks"


def test_limits_differ_from_process_to_process():
    spread = random.Random(4711).uniform
    rooms = {Recycling(Limits(tasks=1000), spread=spread).fit(10_000, 0) for _ in range(50)}
    assert len(rooms) > 20
    assert 1000 * (1 - JITTER) <= min(rooms) < max(rooms) <= 1000 * (1 + JITTER)


def test_a_limit_of_one_is_one():
    assert {Recycling(Limits(tasks=1)).fit(10, 0) for _ in range(50)} == {1}


def test_memory_is_looked_at_every_second_and_after_a_task():
    looks = []
    recycling = Recycling(Limits(memory=100 * MIB), lambda: looks.append(1) or 150 * MIB, spread=plain)
    assert recycling.find_reason(0.0) is None
    assert looks == []
    recycling.count()
    assert recycling.find_reason(1.0) == "it holds 150 MiB of memory after 1 tasks"
    assert recycling.find_reason(1.5) is None
    assert recycling.find_reason(2.0) is not None
    assert len(looks) == 2


def test_memory_that_cannot_be_told_is_no_reason():
    recycling = Recycling(Limits(memory=1), lambda: None, spread=plain)
    recycling.count()
    assert recycling.find_reason(1.0) is None


#: Prints by how many MiB a process grows that takes 32.
GROWTH = """
from soc_tasks.engine.ending import MIB, measure_memory
before = measure_memory()
kept = bytearray(b"x") * (32 * MIB)
print((measure_memory() - before) / MIB)
"""


def test_the_memory_of_this_process_is_told():
    # Of one that has nothing else to free meanwhile.
    grown = subprocess.run([sys.executable, "-c", GROWTH], check=True, capture_output=True, text=True, cwd=ROOT)
    assert 24 < float(grown.stdout) < 64


@pytest.mark.parametrize(("system", "factor"), [("darwin", 1), ("linux", 1024)])
def test_elsewhere_its_peak_is_told(monkeypatch, system, factor):
    resource = pytest.importorskip("resource")

    def fail(self):
        raise FileNotFoundError

    monkeypatch.setattr(module.Path, "read_bytes", fail)
    monkeypatch.setattr(module.sys, "platform", system)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor
    assert measure_memory() == pytest.approx(peak, rel=0.1)


def make_ending(*, replaced=True, tasks=None):
    recycling = Recycling(Limits(tasks=tasks), spread=plain)
    return Ending(10.0, replaced, recycling), recycling


def test_a_worker_that_is_stopped_waits_for_the_grace_period(now):
    ending, _ = make_ending()
    ending.stop()
    assert ending.begun.is_set()
    assert ending.is_over(idle=True, in_trouble=False)
    now[0] += 9
    ending.stop()
    assert not ending.is_over(idle=False, in_trouble=True)
    now[0] += 2
    assert ending.is_over(idle=False, in_trouble=False)


def test_a_worker_that_is_replaced_waits_for_as_long_as_it_takes(now, caplog):
    ending, recycling = make_ending(tasks=1)
    ending.look(now[0])
    assert not ending.begun.is_set()
    recycling.count()
    ending.look(now[0])
    ending.look(now[0])
    assert ending.recycled
    assert ending.begun.is_set()
    now[0] += 1000
    assert not ending.is_over(idle=False, in_trouble=True)
    ending.stop()
    now[0] += 11
    assert ending.is_over(idle=False, in_trouble=False)


def test_nobody_ends_who_would_not_be_replaced(now):
    ending, recycling = make_ending(replaced=False, tasks=1)
    recycling.count()
    ending.look(now[0])
    ending.leave_behind("default", "a")
    assert not ending.begun.is_set()
    assert not ending.recycled


def test_a_thread_that_hangs_may_hold_the_lock_that_is_waited_for(now):
    ending, _ = make_ending()
    ending.leave_behind("default", "a")
    assert ending.recycled
    assert ending.is_over(idle=False, in_trouble=True)
    assert not ending.is_over(idle=False, in_trouble=False)
    now[0] += 11
    assert ending.is_over(idle=False, in_trouble=False)
