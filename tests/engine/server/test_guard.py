"""One server on a database: of whom nobody here can tell whether it lives, and who has lost its place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from django.db import connections

from soc_tasks.engine.processes import born, is_zombie, this_host
from soc_tasks.engine.server.guard import enter
from soc_tasks.engine.server.server import Options, Server
from soc_tasks.engine.store import make_store
from soc_tasks.engine.store.leases import ServedElsewhereError
from soc_tasks.engine.store.rows import WORKERS
from tests.databases import on_every_database
from tests.engine.running import until


def serving(alias):
    store = make_store(alias)
    store.serves = True
    return store


class Stop(threading.Event):
    """Counts the looks; between them something may happen."""

    def __init__(self, happens=lambda look: None):
        super().__init__()
        self.looks = 0
        self.happens = happens

    def wait(self, timeout=None):
        """Look once more."""
        self.looks += 1
        self.happens(self.looks)
        return super().wait(timeout)


def join(store):
    return lambda: store.join("here", 1, 1)


def test_an_empty_place_is_taken_at_once(file_database):
    store, stop = serving(file_database), Stop()
    assert enter(store, join(store), stop)
    assert (stop.looks, store.find_server().host) == (0, "here")


@on_every_database
def test_a_server_elsewhere_that_beats_is_alive(engine_database):
    store = serving(engine_database)
    other = store.join("elsewhere boot", 7, 7)
    stop = Stop(lambda look: store.beat(other) if look == 3 else None)
    with pytest.raises(ServedElsewhereError, match="process id 7 on elsewhere, and there can be one only"):
        enter(store, join(store), stop)
    assert (stop.looks, store.find_server().id) == (3, other)


def test_a_server_elsewhere_whose_beats_stand_still_is_dead(file_database, caplog):
    store, stop = serving(file_database), Stop()
    store.join("elsewhere boot", 7, 7)
    assert enter(store, join(store), stop)
    # For a lease, which is a second here.
    assert stop.looks > 1
    assert store.find_server().host == "here"
    assert "looking for 1 s whether it is alive" in caplog.text


def test_a_server_whose_parent_has_not_asked_for_it_is_dead(file_database):
    """A process that was killed keeps its number until then."""
    store, stop = serving(file_database), Stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        store.join(this_host(), process.pid, born(process.pid))
        with pytest.raises(ServedElsewhereError, match=f"with process id {process.pid}, and"):
            enter(store, join(store), stop)
        process.kill()
        until(lambda: is_zombie(process.pid))
        assert enter(store, join(store), stop)
    assert (stop.looks, store.find_server().host) == (0, "here")


def test_a_number_of_this_machine_whose_process_cannot_be_told_is_watched(file_database):
    """Where there is no /proc, the number may be another process's by now."""
    store, stop = serving(file_database), Stop()
    store.join(this_host(), os.getpid(), 0)
    assert enter(store, join(store), stop)
    assert stop.looks > 1


def test_a_server_that_leaves_meanwhile_makes_room(file_database):
    store = serving(file_database)
    other = store.join("elsewhere boot", 7, 7)
    assert enter(store, join(store), Stop(lambda look: store.leave(other)))


def test_whoever_looks_can_be_stopped(file_database):
    store, stop = serving(file_database), Stop(lambda look: stop.set())
    other = store.join("elsewhere boot", 7, 7)
    assert not enter(store, join(store), stop)
    assert store.find_server().id == other


def test_two_that_look_at_one_time_do_not_both_begin(file_database):
    serving(file_database).join("elsewhere boot", 7, 7)
    outcomes = []

    def begin():
        store = serving(file_database)
        try:
            enter(store, lambda: store.join(this_host(), os.getpid(), born(os.getpid())), threading.Event())
            outcomes.append("began")
        except ServedElsewhereError:
            outcomes.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["began", "refused", "refused"]


def test_a_server_that_has_lost_its_place_ends(serve, caplog):
    """It was stopped for longer than its lease, say; a worker struck it off, and another server began."""
    with serve() as server:
        store = serving(server.store.alias)
        with store.writing() as cursor:
            cursor.execute(f"UPDATE {WORKERS} SET id = id + 1, host = %s WHERE serves = %s", ("elsewhere", True))
        until(server.ended.is_set)
    assert "another one has taken its place" in caplog.text
    assert store.find_server().host == "elsewhere"


def test_a_server_that_was_struck_off_and_finds_its_place_free_goes_on(serve):
    with serve() as server:
        store = serving(server.store.alias)
        record = store.find_server()
        # It may beat in between.
        until(lambda: store.reclaim(store.find_server(), 30.0) is not None)
        until(lambda: (found := store.find_server()) is not None and found.id > record.id)
        assert not server.ended.is_set()


def test_two_in_one_process(serve):
    with serve() as first:
        with pytest.raises(ServedElsewhereError), serve():
            pass
        assert not first.ended.is_set()
    with serve():
        pass


def test_a_start_that_fails_leaves_the_place_free(serve, file_database, key, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Server, "_load_queues", fail)
    with pytest.raises(ZeroDivisionError):
        Server(Options(alias=file_database, key=key)).start()
    assert serving(file_database).find_server() is None
