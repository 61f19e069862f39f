"""Waking workers by bell and by datagram."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest
from django.db import connections

from soc_tasks.engine import wakeup
from soc_tasks.engine.wakeup import Bell, wake

NO_DATAGRAMS = "AF_UNIX" not in dir(socket)


@pytest.fixture
def bell(file_database):
    bell = Bell(file_database)
    yield bell
    bell.close()


def test_a_bell_that_rang_does_not_let_one_sleep(bell):
    bell.ring()
    bell.ring()
    assert bell.wait(10, hear=False) is True
    assert bell.wait(0, hear=False) is False


def test_a_bell_wakes_from_another_thread(bell):
    threading.Timer(0.01, bell.ring).start()
    assert bell.wait(10, hear=False) is True


def test_wake_rings_the_bells_of_this_process(bell, file_database):
    wake(file_database)
    assert bell.wait(0, hear=False) is True
    wake("default")
    assert bell.wait(0, hear=True) is False


@pytest.mark.skipif(NO_DATAGRAMS, reason="no datagrams on this platform")
def test_wake_reaches_other_processes(bell, file_database):
    name = connections[file_database].settings_dict["NAME"]
    code = (
        "import django; from django.conf import settings\n"
        "engine = 'django.db.backends.sqlite3'\n"
        f"settings.configure(DATABASES={{'default': {{'ENGINE': engine, 'NAME': {str(name)!r}}}}})\n"
        "from soc_tasks.engine.wakeup import wake; wake('default')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    # Whoever could take nothing anyway does not listen.
    assert bell.wait(0, hear=False) is False
    assert bell.wait(10, hear=True) is True
    assert bell.wait(0, hear=True) is False


@pytest.mark.skipif(NO_DATAGRAMS, reason="no datagrams on this platform")
def test_each_bell_has_a_slot_and_gives_it_back(bell, file_database):
    second = Bell(file_database)
    assert (bell.slot, second.slot) == (0, 1)
    second.close()
    third = Bell(file_database)
    assert third.slot == 1
    third.close()


@pytest.mark.skipif(NO_DATAGRAMS, reason="no datagrams on this platform")
def test_a_flood_of_wakes_neither_blocks_nor_fails(bell, file_database, monkeypatch):
    monkeypatch.setattr(wakeup, "_bells", {})
    start = time.monotonic()
    for _ in range(2000):
        wake(file_database)
    assert time.monotonic() - start < 10
    assert bell.wait(0, hear=True) is True
    assert bell.wait(0, hear=True) is False


@pytest.mark.skipif(NO_DATAGRAMS, reason="no datagrams on this platform")
def test_who_found_nothing_hears_none_for_a_moment_but_its_own_bell(bell, file_database, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(wakeup.time, "monotonic", lambda: now[0])
    bell.found_nothing()
    assert wakeup._sender(wakeup._key(file_database))._reach(bell.slot)
    assert bell.wait(0, hear=True) is False
    bell.ring()
    assert bell.wait(0, hear=True) is True
    now[0] += wakeup.DEAF
    assert bell.wait(0, hear=True) is True
    assert bell.wait(0, hear=True) is False
    # Who sleeps for longer hears it in its sleep.
    bell.found_nothing()
    assert wakeup._sender(wakeup._key(file_database))._reach(bell.slot)
    assert bell.wait(10, hear=True) is True


@pytest.mark.skipif(NO_DATAGRAMS, reason="no datagrams on this platform")
def test_the_slots_are_looked_for_again_after_a_while(file_database, monkeypatch):
    sender = wakeup._Sender("a key of nobody")
    reached = []
    monkeypatch.setattr(sender, "_reach", lambda slot: reached.append(slot) or slot in {0, 2})
    now = [100.0]
    monkeypatch.setattr(wakeup.time, "monotonic", lambda: now[0])
    sender.send(set())
    # Behind a gap of eight nobody is expected.
    assert reached == list(range(11))
    reached.clear()
    sender.send({2})
    assert reached == [0]
    now[0] += wakeup.FRESH
    reached.clear()
    sender.send(set())
    assert reached == list(range(11))


def test_sockets_in_files_are_taken_over_from_the_dead(file_database, monkeypatch, tmp_path):
    """What is done where sockets have no names without files."""
    monkeypatch.setattr(wakeup.sys, "platform", "darwin")
    monkeypatch.setattr(wakeup.tempfile, "gettempdir", lambda: str(tmp_path))
    dead = Bell(file_database)
    dead._listener.close()
    alive = Bell(file_database)
    assert alive.slot == 0
    other = Bell(file_database)
    assert other.slot == 1
    wake(file_database)
    for bell in (alive, other):
        assert bell.wait(0, hear=True)
        bell.close()
    dead._listener = None
    dead.close()


def test_a_database_in_memory_has_bells_only(db):
    bell = Bell("default")
    assert bell.slot is None
    wake("default")
    assert bell.wait(0, hear=True) is True
    bell.close()
