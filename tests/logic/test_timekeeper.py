"""Timekeeper: what is left of a budget."""

from __future__ import annotations

from datetime import timedelta

import pytest

from soc_tasks import DeadlineExceededError, Timekeeper


@pytest.fixture
def clock():
    now = [100.0]

    def read():
        return now[0]

    read.now = now
    return read


def test_ping_tells_the_time_left_until_there_is_none(clock):
    keeper = Timekeeper(1500, clock=clock)
    assert keeper.ping() == timedelta(seconds=1.5)
    clock.now[0] += 1
    assert keeper.ping() == timedelta(seconds=0.5)
    clock.now[0] += 0.5
    with pytest.raises(DeadlineExceededError, match="1500 ms"):
        keeper.ping()


def test_iterate_stops_before_the_item_that_comes_too_late(clock):
    items = Timekeeper(1000, clock=clock).iterate("abc")
    assert next(items) == (timedelta(seconds=1), "a")
    clock.now[0] += 0.5
    assert next(items) == (timedelta(seconds=0.5), "b")
    clock.now[0] += 0.5
    with pytest.raises(DeadlineExceededError):
        next(items)


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "5", None, True])
def test_a_budget_is_a_number(bad):
    with pytest.raises(ValueError, match="milliseconds"):
        Timekeeper(bad)
