"""What becomes of a task after an attempt."""

from __future__ import annotations

import pytest

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.rows import Leased, write_task
from soc_tasks.engine.verdicts import TIMED_OUT, Outcome, is_last_attempt, judge
from soc_tasks.values import MAX_SECONDS, Answer, RetryOptions
from tests.engine.tasks import make_task

NOW = 1_800_000_000 * SECOND


def lease(retry=None, **columns):
    task = make_task(retry=retry)
    queue, name, due, path, script, headers, body, options, start_id, named, created = write_task(task, NOW)
    return Leased(
        1, queue, name, due, path, script, headers, body, options, start_id, named, created,
        owner=7, attempts=0, responses=0, first_attempt=None, status=None, busy=0, crashes=0, alone=False, progress="",
    )._replace(**columns)  # fmt: skip


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_2xx_is_done(status):
    assert judge(lease(), Answer(status=status), NOW, NOW).outcome is Outcome.DONE


@pytest.mark.parametrize("status", [100, 199, 301, 302, 400, 403, 404, 408, 429, 500, 503])
def test_all_else_is_a_failed_attempt(status):
    verdict = judge(lease(attempts=2, responses=1, first_attempt=NOW - SECOND), Answer(status=status), NOW, NOW + 5)
    assert verdict.outcome is Outcome.RETRY
    assert (verdict.attempts, verdict.responses, verdict.status, verdict.busy) == (3, 2, status, 0)
    assert verdict.first_attempt == NOW - SECOND
    # The third retry, counted from the time of the failure.
    assert verdict.due == NOW + 5 + round(0.4 * SECOND)


def test_an_abandoned_attempt_has_no_response():
    verdict = judge(lease(), Answer(status=TIMED_OUT), NOW - 600 * SECOND, NOW)
    assert (verdict.attempts, verdict.responses, verdict.status, verdict.first_attempt) == (
        1, 0, 504, NOW - 600 * SECOND,
    )  # fmt: skip


def test_the_view_may_say_when():
    assert judge(lease(), Answer(status=500, countdown=90), NOW, NOW).due == NOW + 90 * SECOND
    assert judge(lease(), Answer(status=500, countdown=-5), NOW, NOW).due == NOW
    # What no row could hold.
    assert judge(lease(), Answer(status=500, countdown=float("inf")), NOW, NOW).due == NOW + MAX_SECONDS * SECOND
    assert judge(lease(), Answer(status=500, countdown=float("nan")), NOW, NOW).due == NOW


def test_a_dead_answer_is_done_and_busy_counts_nothing():
    assert judge(lease(), Answer(status=200, outcome="dead"), NOW, NOW).outcome is Outcome.DONE
    verdict = judge(lease(attempts=4, status=500, busy=1), Answer(status=500, outcome="busy"), NOW, NOW)
    assert (verdict.outcome, verdict.busy, verdict.due) == (Outcome.BUSY, 2, NOW + round(0.2 * SECOND))


def test_the_tasks_options_go_before_the_queues(settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": "2", "retry_min_backoff": "7"}]
    assert judge(lease(), Answer(status=500), NOW, NOW).due == NOW + 7 * SECOND
    assert judge(lease(attempts=1), Answer(status=500), NOW, NOW).outcome is Outcome.EXHAUSTED
    own = RetryOptions(max_attempts=5)
    verdict = judge(lease(own, attempts=1), Answer(status=500), NOW, NOW)
    assert verdict.outcome is Outcome.RETRY
    assert verdict.due == NOW + 14 * SECOND
    assert judge(lease(own, attempts=4), Answer(status=500), NOW, NOW).outcome is Outcome.EXHAUSTED


def test_a_queue_that_is_configured_no_more_has_the_defaults(settings):
    settings.CLOUD_TASKS_QUEUES = []
    assert judge(lease(queue="former", attempts=98), Answer(status=500), NOW, NOW).outcome is Outcome.RETRY
    assert judge(lease(queue="former", attempts=99), Answer(status=500), NOW, NOW).outcome is Outcome.EXHAUSTED


def test_view_and_engine_agree_on_which_attempt_is_the_last():
    """An attempt that begins in time and fails past it was not the last: its view did not know, and kept no letter."""
    leased = lease(RetryOptions(max_attempts=-1, max_retry_duration=60), attempts=3, first_attempt=NOW)
    for started, last in ((NOW + 59 * SECOND, False), (NOW + 60 * SECOND, True)):
        assert is_last_attempt(leased, started) is last
        verdict = judge(leased, Answer(status=500), started, started + 5 * SECOND)
        assert (verdict.outcome is Outcome.EXHAUSTED) is last


def test_the_last_attempt_is_known_before_it_is_made():
    own = RetryOptions(max_attempts=3)
    assert [is_last_attempt(lease(own, attempts=made), NOW) for made in range(4)] == [False, False, True, True]
    timed = RetryOptions(max_attempts=-1, max_retry_duration=60)
    assert not is_last_attempt(lease(timed), NOW)
    assert not is_last_attempt(lease(timed, attempts=9, first_attempt=NOW - 59 * SECOND), NOW)
    assert is_last_attempt(lease(timed, attempts=9, first_attempt=NOW - 60 * SECOND), NOW)
