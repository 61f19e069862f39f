"""How much of which queue may be claimed."""

from __future__ import annotations

import pytest

from soc_tasks.engine.caps import burst_size
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.rates import Share, allot, next_moment, refill
from soc_tasks.engine.records import QueueView
from soc_tasks.values import QueueOptions

NOW = 1_800_000_000 * SECOND


def view(name="q", due=NOW, paused=False, tokens=0.0, filled=NOW):
    return QueueView(name, due, paused, tokens, filled)


def rated(rate=None, concurrent=None, name="q"):
    return {name: QueueOptions(name=name, rate_per_second=rate, rate_max_concurrent=concurrent)}


@pytest.mark.parametrize(("rate", "size"), [(0.25, 10), (1, 10), (50, 10), (51, 11), (500, 100)])
def test_the_burst_that_was_seen_of_the_service(rate, size):
    assert burst_size(rate) == size


def test_the_bucket_fills_with_time_and_no_further():
    assert refill(view(filled=0), rated(1), NOW).tokens == 10
    assert refill(view(tokens=2.5, filled=NOW - SECOND), rated(3), NOW).tokens == 5.5
    assert refill(view(tokens=9, filled=NOW - 3600 * SECOND), rated(3), NOW).tokens == 10
    assert refill(view(tokens=4, filled=NOW + 3600 * SECOND), rated(3), NOW).tokens == 4


def test_a_queue_without_options_takes_all():
    assert allot([view()], 50, NOW, {}, {}) == [Share("q", NOW, 50)]


def test_what_is_not_due_or_paused_is_left_out():
    assert allot([view(due=NOW + 1), view("p", paused=True)], 50, NOW, {}, {}) == []


def test_what_is_to_run_at_once_goes_past_everything():
    assert allot([view(due=0, paused=True)], 5, NOW, {}, {}) == [Share("q", 0, 5)]
    assert allot([view(due=0)], 5, NOW, rated(1), {}) == [Share("q", 0, 5)]
    assert next_moment([view(due=0, paused=True)], NOW, {}, {}) == 0


def test_tokens_and_running_tasks_limit_a_queue():
    assert allot([view(tokens=3.9)], 50, NOW, rated(1), {}) == [Share("q", NOW, 3)]
    assert allot([view()], 50, NOW, rated(concurrent=5), {"q": 2}) == [Share("q", NOW, 3)]
    assert allot([view()], 50, NOW, rated(concurrent=5), {"q": 5}) == []


def test_the_next_moment():
    assert next_moment([], NOW, {}, {}) is None
    assert next_moment([view(paused=True)], NOW, {}, {}) is None
    assert next_moment([view(due=NOW + 5), view("b", due=NOW + 3)], NOW, {}, {}) == NOW + 3
    assert next_moment([view(due=NOW - 5, tokens=0.5)], NOW, rated(2), {}) == NOW + SECOND // 4
    assert next_moment([view(due=NOW - 5, tokens=1)], NOW, rated(2), {}) == NOW - 5
    assert next_moment([view(due=NOW - 5)], NOW, rated(concurrent=2), {"q": 2}) is None
    assert next_moment([view(due=NOW - 5)], NOW, rated(concurrent=2), {"q": 1}) == NOW - 5
