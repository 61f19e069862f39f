"""The size of batches, which steers itself to a duration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from soc_tasks.logic.full_logic import MAX_BATCH_SIZE
from soc_tasks.logic.pacing import steer

SIZES = st.integers(1, MAX_BATCH_SIZE)
SECONDS = st.floats(0, 1e6)
TARGETS = st.floats(1e-3, 60)


@given(SIZES, SIZES, SECONDS, TARGETS)
def test_sizes_stay_in_bounds_and_change_gently(size, worked, seconds, target):
    worked = min(worked, size)
    wanted = steer(size, worked, seconds, target)
    assert max(1, worked // 2) <= wanted <= min(2 * size, MAX_BATCH_SIZE)
    if worked < size:
        assert wanted <= size


@given(SIZES, st.floats(1e-4, 10), TARGETS)
def test_constant_work_comes_to_rest_at_the_target(size, each, target):
    for _ in range(40):
        size = steer(size, size, size * each, target)
    assert size == steer(size, size, size * each, target)
    wanted = target / each
    assert abs(size - min(max(wanted, 1), MAX_BATCH_SIZE)) <= 2


def test_slow_batches_halve_and_quick_ones_double():
    assert steer(100, 100, 100.0, 1.0) == 50
    assert steer(100, 100, 0.0, 1.0) == 200
    assert steer(100, 100, 1.25, 1.0) == 80
    assert steer(1, 1, 60.0, 1.0) == 1
    assert steer(900, 900, 0.0, 1.0) == MAX_BATCH_SIZE


def test_a_short_batch_says_nothing_of_longer_ones():
    assert steer(100, 7, 0.001, 1.0) == 100
    assert steer(100, 8, 8.0, 1.0) == 4
    assert steer(100, 0, 0.0, 1.0) == 100
