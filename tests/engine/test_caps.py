"""Caps: queues that start slowly, and that give way."""

from __future__ import annotations

import math

import pytest

from soc_tasks.engine.caps import (
    HALVE_EVERY,
    LEAST_RATE,
    RECOVERY_DOUBLING,
    TOP_RATE,
    bucket_size,
    count_tokens,
    halve,
    pace_at,
    start_slowly,
    time_for,
)
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import QueueView

NOW = 1_800_000_000 * SECOND


def view(cap=None, doubling=1.0, filled=NOW, capped=NOW, tokens=0.0):
    return QueueView("q", NOW, False, tokens, filled, cap, capped, doubling)


def after(seconds):
    return NOW + round(seconds * SECOND)


def test_a_cap_doubles_up_to_the_rate():
    held = view(10)
    assert [pace_at(held, 100, after(seconds)) for seconds in (0, 1, 2, 3, 4, 10**6)] == [10, 20, 40, 80, 100, 100]
    assert pace_at(view(), 100, NOW) == 100
    # The queue's rate was lowered since.
    assert pace_at(view(50), 20, NOW) == 20
    assert pace_at(held, 100, NOW - 3600 * SECOND) == 10


def test_a_capped_bucket_holds_a_second_of_it_and_one_token_at_least():
    assert [bucket_size(view(10), 500, after(seconds)) for seconds in (0, 1, 3, 4, 9)] == [10, 20, 80, 100, 100]
    assert bucket_size(view(0.1), 500, NOW) == 1
    assert bucket_size(view(), 500, NOW) == 100


@pytest.mark.parametrize("doubling", [1.0, 10.0])
@pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 0.5), (1, 2.5), (3, 60), (0, 60), (50, 60)])
def test_tokens_flow_as_the_pace_says(start, end, doubling):
    held = view(7, doubling, filled=after(start))
    steps = 20_000
    width = (end - start) / steps
    summed = sum(pace_at(held, 90, after(start + (number + 0.5) * width)) for number in range(steps)) * width
    assert count_tokens(held, 90, after(end)) == pytest.approx(summed, rel=1e-4)


@pytest.mark.parametrize("cap", [None, 0.02, 7, 90, 200])
@pytest.mark.parametrize("start", [0, 2.5, 400])
@pytest.mark.parametrize("tokens", [1e-6, 0.5, 1, 500])
def test_the_time_for_tokens_is_when_they_have_flowed(cap, start, tokens):
    held = view(cap, 10.0, filled=after(start))
    seconds = time_for(tokens, held, 90, after(start))
    assert count_tokens(held, 90, after(start + seconds)) == pytest.approx(tokens, abs=1e-4)


def test_only_a_fast_queue_that_was_idle_starts_slowly():
    idle = view(filled=NOW - 60 * SECOND, tokens=3)
    started = start_slowly(idle, 11, NOW)
    assert (started.cap, started.capped, started.doubling, started.tokens, started.filled) == (10, NOW, 1, 10, NOW)
    assert start_slowly(view(filled=0), 500, NOW).cap == 10
    assert start_slowly(idle, 10, NOW) is idle
    fresh = view(filled=NOW - 60 * SECOND + 1)
    assert start_slowly(fresh, 500, NOW) is fresh
    # One that is held further down stays there.
    held = view(0.1, RECOVERY_DOUBLING, filled=NOW - 60 * SECOND, capped=NOW - 60 * SECOND)
    assert start_slowly(held, 500, NOW) is held


def test_half_of_what_really_went_on_but_of_ten_at_least():
    def cap(rate, running, seconds, **given):
        halved = halve(view(**given), rate, NOW, running, seconds)
        return None if halved is None else (halved.cap, halved.tokens, halved.capped, halved.doubling)

    assert cap(TOP_RATE, 1000, 0.001) == (250, 0, NOW, RECOVERY_DOUBLING)
    assert cap(TOP_RATE, 8, 0.2) == (20, 0, NOW, RECOVERY_DOUBLING)
    assert cap(TOP_RATE, 1, 30) == (5, 0, NOW, RECOVERY_DOUBLING)
    assert cap(4, 8, 0.2)[0] == 2
    # While it starts slowly, half of that.
    assert cap(500, 8, 0.01, cap=20)[0] == 10
    # A queue that starts less than that anyway.
    assert cap(LEAST_RATE / 2, 1, 1) is None
    assert cap(TOP_RATE, 1, 1, cap=LEAST_RATE, doubling=RECOVERY_DOUBLING, capped=after(-2))[0] == LEAST_RATE


def test_once_in_a_while_only():
    held = view(100, RECOVERY_DOUBLING)
    assert halve(held, 500, after(HALVE_EVERY) - 1, 999, 0.01) is None
    assert halve(held, 500, after(HALVE_EVERY), 999, 0.01).cap == pytest.approx(50 * 2**0.1)
    # A clock that was set back does not stop it.
    assert halve(held, 500, after(-3600), 999, 0.01).cap == 50
    # Under refusals at each probe the pace comes to rest: it doubles between two probes, and is halved.
    cap, now = 5.0, 0.0
    for _ in range(30):
        now += time_for(1, view(cap, RECOVERY_DOUBLING), 500, NOW)
        halved = halve(view(cap, RECOVERY_DOUBLING, capped=after(-max(1, now))), 500, NOW, 1, 0.01)
        cap, now = halved.cap, 0.0
    assert cap == pytest.approx(math.log(2) / RECOVERY_DOUBLING, rel=0.01)
