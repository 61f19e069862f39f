"""When a process takes a suspect, and when it makes room for one."""

from __future__ import annotations

import pytest

from soc_tasks.engine.clock import FakeClock
from soc_tasks.engine.suspects import INTERVAL, LONG_PATIENCE, PATIENCE, Suspects


class Shelf:
    """Stands for a store: suspects that wait, in order."""

    def __init__(self, *waiting):
        self.waiting = list(waiting)
        self.looks = 0

    def next_suspect(self, queues):
        self.looks += 1
        return self.waiting[0] if self.waiting else None

    def claim_suspect(self, worker, queues):
        return self.waiting.pop(0) if self.waiting else None


@pytest.fixture
def clock():
    return FakeClock()


def test_an_idle_process_takes_one_after_the_other(clock):
    suspects = Suspects(Shelf("a", "b"), clock, None)
    assert suspects.take(1, idle=True, leads=True) == "a"
    assert suspects.making_room
    assert suspects.take(1, idle=False, leads=True) is None
    assert suspects.take(1, idle=True, leads=True) == "b"
    assert suspects.take(1, idle=True, leads=True) is None
    assert not suspects.making_room


def test_looks_are_rare_where_there_is_none(clock):
    shelf = Shelf()
    suspects = Suspects(shelf, clock, None)
    for _ in range(100):
        suspects.take(1, idle=True, leads=True)
    assert shelf.looks == 1
    clock.advance(INTERVAL)
    suspects.take(1, idle=True, leads=True)
    assert shelf.looks == 2
    suspects.look_soon()
    suspects.take(1, idle=True, leads=True)
    assert shelf.looks == 3


def test_a_busy_leader_makes_room_when_none_was_free_for_a_while(clock):
    shelf = Shelf("a")
    suspects = Suspects(shelf, clock, None)
    assert suspects.take(1, idle=False, leads=True) is None
    assert not suspects.making_room
    clock.advance(PATIENCE + INTERVAL)
    assert suspects.take(1, idle=False, leads=True) is None
    assert suspects.making_room
    # Free at last: nobody waits for the next look.
    assert suspects.take(1, idle=True, leads=True) == "a"
    assert suspects.take(1, idle=True, leads=True) is None
    shelf.waiting.append("b")
    clock.advance(INTERVAL)
    assert suspects.take(1, idle=False, leads=True) is None
    clock.advance(PATIENCE + INTERVAL)
    assert suspects.making_room
    # Another process was free first.
    shelf.waiting.clear()
    clock.advance(INTERVAL)
    assert suspects.take(1, idle=False, leads=True) is None
    assert not suspects.making_room


def test_the_others_go_on_unless_nobody_takes_a_suspect_for_long(clock):
    shelf = Shelf("a", "b")
    suspects = Suspects(shelf, clock, None)

    def look(seconds):
        clock.advance(seconds)
        assert suspects.take(1, idle=False, leads=False) is None
        return suspects.making_room

    assert not look(0)
    assert not look(LONG_PATIENCE - 1)
    # The leader has taken the first one: the second has its own time.
    shelf.waiting.pop(0)
    assert not look(2)
    assert not look(LONG_PATIENCE - 1)
    assert look(2)
    assert suspects.take(1, idle=True, leads=False) == "b"
    # The leader has gone, and this process leads now.
    shelf.waiting.append("c")
    suspects.alone = False
    assert not look(INTERVAL)
    clock.advance(PATIENCE + INTERVAL)
    assert suspects.take(1, idle=False, leads=True) is None
    assert suspects.making_room


def test_a_suspect_that_another_took_first_blocks_nobody(clock):
    class Race(Shelf):
        def claim_suspect(self, worker, queues):
            return None

    suspects = Suspects(Race("a"), clock, None)
    assert suspects.take(1, idle=True, leads=True) is None
    assert not suspects.making_room
