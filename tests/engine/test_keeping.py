"""Connections that threads keep: whether they are good is asked once a second, and where there is a doubt."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from soc_tasks.engine import keeping
from soc_tasks.engine.keeping import GOOD_FOR, HealthCheck, count_open, doubt, keep_connections


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
