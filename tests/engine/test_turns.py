"""Turns of the writers of one SQLite database."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from soc_tasks.engine.store import turns
from soc_tasks.engine.store.turns import Turn

HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read(1)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has its turn."""
    path = str(tmp_path / "lock")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process, path
    process.communicate("x", timeout=30)


def test_one_process_after_the_other(holder):
    process, path = holder
    turn, entered = Turn(path), threading.Event()

    def write():
        with turn:
            entered.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not entered.wait(0.05)
    process.stdin.write("x")
    process.stdin.flush()
    assert entered.wait(10)
    thread.join()


def test_whoever_waits_too_long_goes_on_without_a_turn(holder, monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 0.01)
    _, path = holder
    turn = Turn(path)
    with turn:
        assert not turn._held


def test_threads_of_one_process_take_turns(tmp_path):
    turn, inside = Turn(str(tmp_path / "lock")), []

    def write():
        for _ in range(100):
            with turn:
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_child_does_not_share_the_turn_of_its_parent(tmp_path, monkeypatch):
    turn = Turn(str(tmp_path / "lock"))
    with turn:
        parent = turn._file
    monkeypatch.setattr(turns.os, "getpid", lambda: -1)
    with turn:
        assert turn._held
        assert turn._file != parent


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o666])
@pytest.mark.parametrize("before", [None, 0o666])
def test_the_file_has_the_mode_of_the_database(tmp_path, umask, mode, before):
    database, lock = tmp_path / "database", tmp_path / "lock"
    database.touch()
    database.chmod(mode)
    if before is not None:
        lock.touch()
        lock.chmod(before)
    umask = os.umask(umask)
    try:
        with Turn(str(lock), str(database)):
            assert lock.stat().st_mode & 0o777 == mode
    finally:
        os.umask(umask)


def test_without_a_database_the_file_is_the_owners(tmp_path):
    with Turn(str(tmp_path / "lock"), str(tmp_path / "nowhere")):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written_has_no_turns(tmp_path):
    turn = Turn(str(tmp_path / "nowhere" / "lock"))
    with turn:
        assert not turn._held
    with Turn(None):
        pass
