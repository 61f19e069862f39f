"""What becomes of a task after an attempt."""

from __future__ import annotations

import pytest

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.store.rows import Leased, write_task
from soc_tasks.engine.verdicts import TIMED_OUT, UNKNOWN, Outcome, is_last_attempt, judge
from soc_tasks.values import MAX_SECONDS, Answer, RetryOptions
from tests.engine.tasks import make_task

NOW = 1_800_000_000 * SECOND


def lease(retry=None, **columns):
    task = make_task(retry=retry)
    _, queue, name, due, path, script, headers, body, options, start_id, named, created, _ = write_task(task, NOW)
    return Leased(
        1, queue, name, due, path, script, headers, body, options, start_id, named, created,
        owner=7, attempts=0, responses=0, first_attempt=None, status=None, busy=0, crashes=0, alone=False, progress="",
        unknown=None,
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


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_may_say_when(status):
    def due(seconds, **columns):
        return judge(lease(**columns), Answer(status=status, retry_after=seconds), NOW - SECOND, NOW).due - NOW

    # Whichever is later, its wait or the backoff; an hour at most.
    assert due(90.5) == 90.5 * SECOND
    assert due(0) == due(0.05) == due(-1) == due(float("nan")) == round(0.1 * SECOND)
    assert due(2, attempts=6) == round(6.4 * SECOND)
    assert due(7200) == due(float("inf")) == 3600 * SECOND
    # The view's own countdown goes before what a proxy may have added.
    answer = Answer(status=status, retry_after=90, countdown=5)
    assert judge(lease(), answer, NOW, NOW).due == NOW + 5 * SECOND


def test_which_answers_slow_the_queue_down():
    def is_overload(status, **answer):
        return judge(lease(RetryOptions(max_attempts=3)), Answer(status=status, **answer), NOW, NOW).is_overload

    assert is_overload(503)
    assert is_overload(429)
    assert not any(is_overload(status) for status in (200, 302, 400, 404, 408, 500, 502, 504))
    assert not is_overload(503, outcome="busy")
    assert not is_overload(503, outcome="unknown")
    last = judge(lease(RetryOptions(max_attempts=1)), Answer(status=503), NOW - 2 * SECOND, NOW)
    assert (last.outcome, last.is_overload, last.seconds) == (Outcome.EXHAUSTED, True, 2)


def test_a_run_that_was_asked_for_is_tried_again_as_from_that_call():
    called = NOW - 20 * SECOND
    leased = lease(RetryOptions(min_backoff=30, max_backoff=30), due=-called)
    assert judge(leased, Answer(status=500), NOW - 15 * SECOND, NOW).due == called + 30 * SECOND
    # Never before its failure, which would put it in front of others.
    assert judge(leased, Answer(status=500), NOW, NOW + 60 * SECOND).due == NOW + 60 * SECOND
    assert judge(leased, Answer(status=503, retry_after=40), NOW, NOW).due == NOW + 40 * SECOND
    # One that an older release marked so says nothing of its call.
    assert judge(leased._replace(due=0), Answer(status=500), NOW, NOW).due == NOW + 30 * SECOND


def test_what_nobody_knows_is_no_attempt_and_waits_longer_each_time():
    verdict = judge(lease(attempts=2, status=500), Answer(status=404, outcome="unknown"), NOW, NOW)
    assert (verdict.outcome, verdict.due, verdict.unknown) == (Outcome.UNKNOWN, NOW + SECOND, NOW)
    for age, delay in ((1, 1), (2.5, 2.5), (59, 59), (61, 60), (86399, 60)):
        now = NOW + round(age * SECOND)
        verdict = judge(lease(unknown=NOW), Answer(status=500, outcome="unknown"), now, now)
        assert (verdict.outcome, verdict.due - now, verdict.unknown) == (Outcome.UNKNOWN, delay * SECOND, NOW)
    late = judge(lease(unknown=NOW, attempts=2), Answer(status=404, outcome="unknown"), NOW, NOW + 86400 * SECOND)
    assert (late.outcome, late.attempts, late.status) == (Outcome.EXHAUSTED, 2, UNKNOWN)
    # A clock that was set back.
    early = judge(lease(unknown=NOW), Answer(status=404, outcome="unknown"), NOW, NOW - 3600 * SECOND)
    assert early.due == NOW - 3599 * SECOND


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
