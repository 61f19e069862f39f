"""The write-ahead log: who checkpoints, when, and that it stays small; the database itself is a file."""

from __future__ import annotations

import os
import sqlite3
import threading

import pytest
from django.db import connections

from soc_tasks.engine.store import checkpoints as module
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.checkpoints import (
    EMERGENCY,
    LIMIT,
    PATIENCE,
    PAUSE,
    Checkpoints,
    Due,
    is_affected,
    keep_checkpoints,
)
from tests.engine.running import until
from tests.engine.tasks import make_task

AFFECTED, MENDED = (3, 40, 1), (3, 51, 3)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 49, 9), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 0), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_which_versions_have_the_bug(version, affected):
    assert is_affected(version) is affected


@pytest.fixture
def store(file_database):
    return get_store(file_database)


@pytest.fixture
def path(store):
    return f"{connections[store.alias].settings_dict['NAME']}-wal"


@pytest.fixture
def start(store):
    started = []

    def start(version, leads=lambda: True):
        connections[store.alias].close()
        thread = Checkpoints(store, leads, version)
        started.append(thread)
        thread.start()
        return thread

    yield start
    for thread in started:
        thread.end()
        thread.join(10)
        assert not thread.is_alive()


def pragma(store, name):
    with store.cursor() as cursor:
        return cursor.execute(f"PRAGMA {name}").fetchone()[0]


def write(store, megabytes):
    """Grow the log, by tasks with large bodies."""
    for _ in range(megabytes):
        store.add([make_task(body=b"x" * 1_000_000)])


def copied(store):
    """How many megabytes the database file holds by itself; by its size alone, lest a lock be dropped."""
    return os.path.getsize(connections[store.alias].settings_dict["NAME"]) / 1_000_000


def test_on_an_affected_version_connections_of_this_process_do_not_checkpoint(store, start):
    thread = start(AFFECTED)
    assert pragma(store, "wal_autocheckpoint") == 0
    assert pragma(store, "journal_size_limit") == LIMIT
    found = []

    def look():
        try:
            found.append(pragma(store, "wal_autocheckpoint"))
        finally:
            connections[store.alias].close()

    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert found == [0]
    thread.end()
    thread.join(10)
    connections[store.alias].close()
    assert pragma(store, "wal_autocheckpoint") == 1000


def test_on_a_version_without_the_bug_nothing_is_changed(store, start):
    thread = start(MENDED)
    assert pragma(store, "wal_autocheckpoint") == 1000
    assert pragma(store, "journal_size_limit") == -1
    # There is nothing to do.
    thread.join(10)
    assert not thread.is_alive()


def test_a_limit_that_the_site_has_set_is_kept(store, start):
    connections[store.alias].settings_dict["OPTIONS"]["init_command"] += "; PRAGMA journal_size_limit=12345"
    start(AFFECTED)
    assert pragma(store, "journal_size_limit") == 12345


@pytest.mark.parametrize("version", [AFFECTED, MENDED])
def test_the_log_stays_small_where_nobody_else_checkpoints(store, start, path, version):
    if version == MENDED:
        connections[store.alias].settings_dict["OPTIONS"]["init_command"] += "; PRAGMA wal_autocheckpoint=0"
    start(version)
    write(store, 12)
    until(lambda: copied(store) > 6)
    # The log begins anew, and is cut where this process begins it.
    for total in range(24, 84, 12):
        write(store, 12)
        until(lambda total=total: copied(store) > total - 10)
    assert os.path.getsize(path) < 30_000_000
    assert pragma(store, "integrity_check") == "ok"


def test_without_it_the_log_would_grow(store, path):
    connections[store.alias].close()
    connections[store.alias].settings_dict["OPTIONS"]["init_command"] += "; PRAGMA wal_autocheckpoint=0"
    write(store, 20)
    assert os.path.getsize(path) > 20_000_000
    assert copied(store) < 1


def test_nobody_commits_while_it_checkpoints(store, start, monkeypatch):
    thread = start(AFFECTED)
    seen = []

    class Spy:
        def __init__(self, connection):
            self._connection = connection

        def execute(self, sql):
            name = connections[store.alias].settings_dict["NAME"]
            other = sqlite3.connect(name, isolation_level=None, timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
            row = self._connection.execute(sql)
            seen.append(sql)
            return row

    def copy_and_spy(self, real=Checkpoints._checkpoint):
        if self._other is None:
            self._other = connections[store.alias].copy()
            self._other.ensure_connection()
            self._other.connection = Spy(self._other.connection)
            self._other.ensure_connection = lambda: None
            self._other.close = self._other.connection._connection.close
        return real(self)

    monkeypatch.setattr(Checkpoints, "_checkpoint", copy_and_spy)
    write(store, 8)
    until(lambda: seen)
    assert set(seen) == {"PRAGMA wal_checkpoint(PASSIVE)"}
    assert thread.is_alive()


def test_a_reader_delays_it_and_it_tries_again(store, start, path):
    write(store, 1)
    name = connections[store.alias].settings_dict["NAME"]
    reader = sqlite3.connect(name, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM soc_tasks_engine_task").fetchone()
    start(AFFECTED)
    write(store, 8)
    until(lambda: os.path.getsize(path) > 8_000_000)
    assert copied(store) < 2
    reader.close()
    until(lambda: copied(store) > 8)


def test_a_lock_that_is_not_to_be_had_is_waited_for(store, start, path, caplog):
    connections[store.alias].settings_dict["OPTIONS"]["timeout"] = 0.05
    write(store, 8)
    connections[store.alias].close()
    holder = sqlite3.connect(connections[store.alias].settings_dict["NAME"], isolation_level=None)
    write_more = sqlite3.connect(connections[store.alias].settings_dict["NAME"], isolation_level=None)
    write_more.execute("PRAGMA wal_autocheckpoint=0")
    for _ in range(8):
        write_more.execute("CREATE TABLE IF NOT EXISTS filler (body BLOB)")
        write_more.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
    holder.execute("BEGIN IMMEDIATE")
    start(AFFECTED)
    until(lambda: "is not cut, trying again" in caplog.text)
    holder.execute("ROLLBACK")
    until(lambda: copied(store) > 8)
    holder.close()
    write_more.close()


@pytest.mark.django_db
def test_a_database_in_memory_has_no_log():
    assert keep_checkpoints(get_store("default"), lambda: True) is None


# When it is due.


@pytest.fixture
def log(monkeypatch):
    stamp = {"size": 0, "time": 0}
    monkeypatch.setattr(module, "_measure", lambda path: (stamp["size"], stamp["time"]))
    return stamp


def grow(log, size):
    log["size"], log["time"] = size, log["time"] + 1


def test_a_small_log_is_left_alone(log):
    due = Due()
    assert not due.look("x", 0.0, leads=True)
    grow(log, LIMIT)
    assert not due.look("x", 100.0, leads=True)


def test_a_large_one_is_due_at_once_and_then_as_it_is_written_to(log):
    due = Due()
    grow(log, LIMIT + 1)
    assert due.look("x", 100.0, leads=True)
    due.note("x", 100.0, complete=True)
    # It stays as large until it begins anew; nothing was written since.
    assert not due.look("x", 200.0, leads=True)
    grow(log, LIMIT + 1)
    assert due.look("x", 201.0, leads=True)
    due.note("x", 201.0, complete=True)
    grow(log, LIMIT + 1)
    assert not due.look("x", 201.0 + PAUSE / 2, leads=True)
    grow(log, 2 * LIMIT + 2)
    assert due.look("x", 201.0 + PAUSE / 2, leads=True)


def test_one_that_was_cut_may_grow_by_the_limit(log):
    due = Due()
    grow(log, 10 * LIMIT)
    assert due.look("x", 100.0, leads=True)
    due.note("x", 100.0, complete=True)
    grow(log, LIMIT)
    assert not due.look("x", 100.1, leads=True)
    grow(log, 2 * LIMIT)
    assert not due.look("x", 100.2, leads=True)
    grow(log, 2 * LIMIT + 1)
    assert due.look("x", 100.3, leads=True)


def test_one_that_could_not_be_copied_is_due_again(log):
    due = Due()
    grow(log, 2 * LIMIT)
    assert due.look("x", 100.0, leads=True)
    due.note("x", 100.0, complete=False)
    assert not due.look("x", 100.1, leads=True)
    assert due.look("x", 100.0 + PAUSE, leads=True)


def test_others_step_in_where_the_leader_does_not(log):
    due = Due()
    grow(log, EMERGENCY)
    assert not due.look("x", 100.0, leads=False)
    assert not due.look("x", 100.1 + PATIENCE, leads=False)
    grow(log, EMERGENCY + 1)
    assert due.look("x", 100.2 + PATIENCE, leads=False)
    due.note("x", 100.3 + PATIENCE, complete=True)
    grow(log, EMERGENCY + 1)
    assert not due.look("x", 102.0 + PATIENCE, leads=False)
    assert not due.look("x", 101.9 + 2 * PATIENCE, leads=False)
    assert due.look("x", 102.1 + 2 * PATIENCE, leads=False)
