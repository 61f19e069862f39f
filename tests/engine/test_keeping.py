"""Connections that threads keep: whether they are good is asked once a second, and where there is a doubt."""

from __future__ import annotations

import threading

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.http import HttpResponse

from soc_tasks.engine import keeping
from soc_tasks.engine.keeping import GOOD_FOR, HealthCheck, count_open, doubt, keep_connections, requests_spared, tidy
from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from tests.backends.sites.base import in_thread
from tests.engine import urls
from tests.engine.tasks import make_task


class Connection:
    """Counts how often it is asked."""

    def __init__(self):
        self.good, self.errors_occurred, self.asked = True, False, 0
        self.is_usable = HealthCheck(self)

    def is_usable(self):
        self.asked += 1
        return self.good


@pytest.fixture
def now(monkeypatch):
    moment = [100.0]
    monkeypatch.setattr(keeping.time, "monotonic", lambda: moment[0])
    return moment


def test_a_good_connection_is_asked_once_a_second(now):
    connection = Connection()
    assert all(connection.is_usable() for _ in range(5))
    assert connection.asked == 1
    now[0] += GOOD_FOR
    assert connection.is_usable()
    assert connection.asked == 2


def test_a_bad_one_and_one_with_an_error_are_asked_each_time(now):
    connection = Connection()
    connection.good = False
    assert [connection.is_usable() for _ in range(3)] == [False] * 3
    connection.good = connection.errors_occurred = True
    assert [connection.is_usable() for _ in range(3)] == [True] * 3
    assert connection.asked == 6


def test_a_doubt_has_it_asked_again(now):
    connection = Connection()
    connection.is_usable()
    doubt([connection])
    connection.is_usable()
    assert connection.asked == 2


@pytest.mark.django_db(databases=["default", "other"])
def test_a_thread_keeps_its_own_connections_and_no_others():
    found = []

    def look():
        kept = keep_connections()
        found.extend((c.alias, c.settings_dict["CONN_MAX_AGE"], type(c.is_usable)) for c in kept)
        connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert {("default", None, HealthCheck), ("other", None, HealthCheck)} <= set(found)
    assert connections["default"].settings_dict["CONN_MAX_AGE"] == 0
    assert not isinstance(connections["default"].is_usable, HealthCheck)


def test_those_that_are_open_are_counted():
    open_one, closed = Connection(), Connection()
    open_one.connection, closed.connection = object(), None
    assert count_open([open_one, closed]) == 1


@pytest.fixture(name="spared")
def spared_requests():
    """Let threads that keep their connections tidy them, as in a process of workers."""
    with requests_spared():
        yield


def request():
    """Begin and end a request, as Django's handler does."""
    request_started.send(sender=None, environ={})
    request_finished.send(sender=None)


def watch(connection, looks):
    """Note each look at a connection, and give it a query that was logged."""
    connection.close_if_unusable_or_obsolete = lambda: looks.append(connection.alias)
    connection.queries_log.append("a query")


def count_looks(*, keeps, work):
    """Return how often this thread's connections are looked at, and what is left of queries that were logged before."""

    def look():
        if keeps:
            keep_connections()
        looks, watched = [], [connections[alias] for alias in connections]
        for connection in watched:
            watch(connection, looks)
        work()
        return sorted(looks), sum(len(connection.queries_log) for connection in watched)

    return in_thread(look)


@pytest.mark.usefixtures("spared")
def test_requests_leave_those_that_a_thread_keeps_to_that_thread():
    aliases = sorted(connections)
    assert count_looks(keeps=True, work=request) == ([], len(aliases))
    assert count_looks(keeps=True, work=tidy) == (aliases, 0)
    assert count_looks(keeps=False, work=request) == (sorted(2 * aliases), 0)


def test_in_other_processes_requests_look_at_all():
    with requests_spared():
        # What was left out comes back.
        pass
    assert count_looks(keeps=True, work=request) == (sorted(2 * list(connections)), 0)


@pytest.mark.usefixtures("spared")
def test_who_leaves_out_djangos_looks_for_a_while_leaves_out_these():
    """As Django's test client does."""
    assert request_started.disconnect(close_old_connections)
    assert request_finished.disconnect(close_old_connections)
    assert count_looks(keeps=False, work=request) == ([], 0)
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)
    assert count_looks(keeps=False, work=request) == (sorted(2 * list(connections)), 0)


def test_what_a_site_has_left_out_stays_so():
    request_finished.disconnect(close_old_connections)
    try:
        with requests_spared():
            assert count_looks(keeps=False, work=request) == (sorted(connections), 0)
        assert count_looks(keeps=False, work=request) == (sorted(connections), 0)
    finally:
        request_finished.connect(close_old_connections)


def test_those_that_came_later_are_looked_at_too(monkeypatch):
    def change():
        monkeypatch.setitem(connections.settings, "added", connections.settings["default"])
        del connections["other"]
        for alias in ("added", "other"):
            watch(connections[alias], looks)
        tidy()
        assert not connections["added"].queries_log

    looks = []
    found, _ = count_looks(keeps=True, work=change)
    assert found == sorted(set(connections) - {"added", "other"})
    assert sorted(looks) == ["added", "other"]


@pytest.mark.usefixtures("spared")
def test_what_a_task_leaves_behind_on_a_connection_does_not_reach_the_next(monkeypatch, file_database):
    found = []

    def leave(request):
        connection = connections[file_database]
        found.append((connection.get_autocommit(), len(connection.queries_log)))
        connection.queries_log.append("a query")
        connection.set_autocommit(False)
        return HttpResponse()

    monkeypatch.setattr(urls.urlpatterns[0], "callback", leave)
    store = get_store(file_database)
    store.add([make_task(f"/{urls.urlpatterns[0].pattern}") for _ in range(3)])
    assert Worker(file_database, threads=1).run_until_empty() == 3
    assert found == [(True, 0)] * 3


def test_one_that_cannot_be_put_in_order_is_closed_and_the_others_are_looked_at(file_database, caplog):
    def fail():
        raise RuntimeError("out of order")

    def look():
        looks, broken = [], connections[file_database]
        for alias in connections:
            watch(connections[alias], looks)
        broken.ensure_connection()
        broken.close_if_unusable_or_obsolete = fail
        tidy()
        return looks, broken.connection

    assert in_thread(look) == ([alias for alias in connections if alias != file_database], None)
    assert f"the connection to {file_database} could not be put in order" in caplog.text
