"""The supervisor's own decisions; what real processes do is in test_processes."""

from __future__ import annotations

import errno
import gc
import os
import signal

import pytest
from django.core.management import call_command

from soc_tasks.engine import supervisor as module
from soc_tasks.engine.children import FIRST_PAUSE, LONGEST_PAUSE, RECYCLED, STEADY, Child
from soc_tasks.engine.pulse import Beat
from soc_tasks.engine.supervisor import Supervisor

pytestmark = pytest.mark.requires("sigkill")


@pytest.fixture
def now(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def child():
    return Child()


@pytest.fixture
def supervisor(file_database, child):
    supervisor = Supervisor(file_database, processes=2, threads=1)
    supervisor._children = [child]
    supervisor._said_ready = True
    return supervisor


def blocked():
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ())) & {signal.SIGTERM, signal.SIGINT}


def test_signals_wait_until_a_child_has_handlers_of_its_own(supervisor, child, monkeypatch):
    seen = []
    monkeypatch.setattr(module.os, "fork", lambda: seen.append(blocked()) or 4711)
    supervisor._start(child, None, -1, -1)
    assert seen == [{signal.SIGTERM, signal.SIGINT}]
    assert blocked() == set()
    assert child.pid == 4711
    os.close(child.reader)


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_loaded_is_kept_out_of_the_collections_of_a_child_alone(supervisor, child, monkeypatch, now, fails):
    """Else the first full one in each child would make its own copy of all that it shares."""
    frozen = []

    def fork():
        frozen.append(gc.get_freeze_count())
        if fails:
            raise OSError(errno.EAGAIN, "no more processes")
        return 4711

    monkeypatch.setattr(module.os, "fork", fork)
    supervisor._start(child, None, -1, -1)
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0
    if not fails:
        os.close(child.reader)


def test_a_signal_that_came_before_the_child_is_passed_on(supervisor, child, monkeypatch):
    killed = []
    monkeypatch.setattr(module.os, "fork", lambda: supervisor.stop() or 4711)
    monkeypatch.setattr(module.os, "kill", lambda *given: killed.append(given))
    supervisor._start(child, None, -1, -1)
    assert killed == [(4711, signal.SIGTERM)]
    os.close(child.reader)


def test_one_child_speaks_for_all(file_database, monkeypatch):
    supervisor = Supervisor(file_database, processes=2, threads=1, until_empty=True, tell=print)
    supervisor._children = [Child(), Child()]
    given = []
    monkeypatch.setattr(module.os, "fork", lambda: 0)
    monkeypatch.setattr(module, "be_child", lambda *arguments: given.append(arguments[-1]))
    for child in supervisor._children:
        supervisor._start(child, None, -1, os.dup(0))
        os.close(child.reader)
    assert given == [print, None]


def test_where_no_process_can_be_made_it_tries_again_later_each_time(supervisor, child, monkeypatch, now, caplog):
    def fail():
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(module.os, "fork", fail)
    waits = []
    for _ in range(8):
        supervisor._start(child, None, -1, -1)
        waits.append(round(child.start_at - now[0], 3))
        assert (child.pid, child.reader) == (0, -1)
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert blocked() == set()
    assert "no worker process could be started" in caplog.text


def test_a_child_that_dies_again_and_again_is_replaced_later_each_time(supervisor, child, now):
    def die(after, result=-9):
        child.pid, child.beat, child.started = 4711, Beat(0, 0, False, True), now[0]
        now[0] += after
        assert supervisor._note_end(child, result) == 0
        return round(child.start_at - now[0], 3)

    assert [die(0.5) for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE]
    assert die(STEADY + 1) == FIRST_PAUSE


def test_a_child_that_asks_for_it_is_replaced_at_once(supervisor, child, now):
    child.pid, child.started = 4711, now[0]
    now[0] += 0.5
    assert supervisor._note_end(child, RECYCLED) == 0
    assert supervisor._children == [child]
    assert child.start_at <= now[0]
    assert child.pause == FIRST_PAUSE
    # And not, but without a complaint, once the end has come.
    supervisor.stop()
    assert supervisor._note_end(child, RECYCLED) == 0
    assert supervisor._children == []


@pytest.mark.django_db
def test_in_memory_one_process_is_enough(monkeypatch):
    asked = {}

    class Fake:
        def __init__(self, alias, **options):
            asked.update(options)

        def run(self):
            return 0

    monkeypatch.setattr(module, "Supervisor", Fake)
    call_command("tasks", "run", "--processes", "4", "--until-empty", verbosity=0)
    # A child would drain a copy of the database; and pytest must not be started anew for a thread that hangs.
    assert (asked["processes"], asked["restarts"]) == (1, False)


def test_a_child_that_has_closed_its_pipe_is_not_waited_for(supervisor, child, monkeypatch):
    """The pipe closes a moment before the child can be reaped; there is nothing else to wake by."""
    waits = []
    monkeypatch.setattr(module.select, "select", lambda *given: waits.append(given[3]) or ([], [], []))
    child.pid, child.reader = 4711, 99
    supervisor._listen()
    child.reader = -1
    supervisor._listen()
    assert waits == [module.LOOK, module.GOING]
