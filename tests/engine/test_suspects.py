"""When a process takes a suspect, and when it makes room for one."""

from __future__ import annotations

import pytest

from soc_tasks.engine.clock import FakeClock
from soc_tasks.engine.suspects import INTERVAL, PATIENCE, Suspects


class Shelf:
    """Stands for a store: suspects that wait, in order."""

    def __init__(self, *waiting):
        self.waiting = list(waiting)
        self.looks = 0

    def next_suspect(self, queues):
        self.looks += 1
        return 1 if self.waiting else None

    def claim_suspect(self, worker, queues):
        return self.waiting.pop(0) if self.waiting else None


@pytest.fixture
def clock():
    return FakeClock()


def test_an_idle_process_takes_one_after_the_other(clock):
    suspects = Suspects(Shelf("a", "b"), clock, None)
    assert suspects.take(1, idle=True) == "a"
    assert suspects.making_room
    assert suspects.take(1, idle=False) is None
    assert suspects.take(1, idle=True) == "b"
    assert suspects.take(1, idle=True) is None
    assert not suspects.making_room


def test_looks_are_rare_where_there_is_none(clock):
    shelf = Shelf()
    suspects = Suspects(shelf, clock, None)
    for _ in range(100):
        suspects.take(1, idle=True)
    assert shelf.looks == 1
    clock.advance(INTERVAL)
    suspects.take(1, idle=True)
    assert shelf.looks == 2
    suspects.look_soon()
    suspects.take(1, idle=True)
    assert shelf.looks == 3


def test_busy_processes_make_room_when_none_was_free_for_a_while(clock):
    shelf = Shelf("a")
    suspects = Suspects(shelf, clock, None)
    assert suspects.take(1, idle=False) is None
    assert not suspects.making_room
    clock.advance(PATIENCE + INTERVAL)
    assert suspects.take(1, idle=False) is None
    assert suspects.making_room
    # Free at last: nobody waits for the next look.
    assert suspects.take(1, idle=True) == "a"
    assert suspects.take(1, idle=True) is None
    shelf.waiting.append("b")
    clock.advance(INTERVAL)
    assert suspects.take(1, idle=False) is None
    clock.advance(PATIENCE + INTERVAL)
    assert suspects.making_room
    # Another process was free first.
    shelf.waiting.clear()
    clock.advance(INTERVAL)
    assert suspects.take(1, idle=False) is None
    assert not suspects.making_room


def test_a_suspect_that_another_took_first_blocks_nobody(clock):
    class Race(Shelf):
        def claim_suspect(self, worker, queues):
            return None

    suspects = Suspects(Race("a"), clock, None)
    assert suspects.take(1, idle=True) is None
    assert not suspects.making_room
