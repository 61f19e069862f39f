"""When a failed task is tried again: the documented sequences, and the rule of both limits."""

from __future__ import annotations

import pytest

from soc_tasks.engine.backoff import busy_delay, is_exhausted, retry_delay
from soc_tasks.engine.clock import SECOND
from soc_tasks.values import DEFAULT_RETRY, RetryOptions


def delays(count, **options):
    return [retry_delay(retry, RetryOptions(**options)) for retry in range(1, count + 1)]


def test_the_sequence_documented_for_three_doublings():
    expected = [10, 20, 40, 80, 160, 240, 300, 300]
    assert delays(8, min_backoff=10, max_backoff=300, max_doublings=3) == expected


def test_the_sequence_documented_for_no_doubling():
    expected = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200, 200]
    assert delays(21, min_backoff=10, max_backoff=200, max_doublings=0) == expected


def test_the_default_doubles_from_a_tenth_to_an_hour():
    assert delays(3) == [0.1, 0.2, 0.4]
    assert retry_delay(16, DEFAULT_RETRY) == pytest.approx(0.1 * 2**15)
    assert retry_delay(17, DEFAULT_RETRY) == 3600


def test_endless_retries_neither_overflow_nor_vanish():
    assert retry_delay(10**6, RetryOptions(max_doublings=10**6)) == 3600
    assert retry_delay(10**6, RetryOptions(min_backoff=0)) == 0
    assert retry_delay(5, RetryOptions(min_backoff=7, max_backoff=7)) == 7


@pytest.mark.parametrize("retry", [2, 1023, 1100, 2**31])
@pytest.mark.parametrize("low", [5e-324, 0.1, 2_500_000.0])
def test_the_largest_numbers_end_at_the_longest_wait(retry, low):
    delay = retry_delay(retry, RetryOptions(min_backoff=low, max_backoff=2_592_000, max_doublings=2**31 - 1))
    assert delay == min(low * 2.0 ** min(retry - 1, 1000) * 2.0 ** min(max(0, retry - 1001), 1000), 2_592_000)


def test_busy_waits_grow_to_a_second():
    assert [busy_delay(times) for times in (1, 2, 3, 4, 5, 99)] == [0.1, 0.2, 0.4, 0.7, 1.0, 1.0]


@pytest.mark.parametrize(
    ("attempts", "seconds", "options", "expected"),
    [
        # Attempts alone.
        (2, 10**9, {"max_attempts": 3}, False),
        (3, 0, {"max_attempts": 3}, True),
        (1, 0, {"max_attempts": 1}, True),
        (99, 10**9, {}, False),
        (100, 0, {}, True),
        # Without limit.
        (10**6, 10**9, {"max_attempts": -1}, False),
        # Time alone.
        (10**6, 59, {"max_attempts": -1, "max_retry_duration": 60}, False),
        (1, 60, {"max_attempts": -1, "max_retry_duration": 60}, True),
        # Both: both must be passed.
        (3, 59, {"max_attempts": 3, "max_retry_duration": 60}, False),
        (2, 61, {"max_attempts": 3, "max_retry_duration": 60}, False),
        (3, 60, {"max_attempts": 3, "max_retry_duration": 60}, True),
    ],
)
def test_when_a_task_is_exhausted(attempts, seconds, options, expected):
    first = 1_800_000_000 * SECOND
    assert is_exhausted(attempts, first, first + seconds * SECOND, RetryOptions(**options)) is expected
