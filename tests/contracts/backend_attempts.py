"""What fails comes again, as often as it may and no more; what is given up is kept."""

from __future__ import annotations

import pytest

from soc_tasks import (
    FatalTaskError,
    RetryOptions,
    SingularTaskFailure,
    Timekeeper,
    repeatTask,
    startTask,
    terminateTask,
)
from soc_tasks.state import get_state
from tests.contracts.backend_site import acts, always, calls

#: Attempts of a task in the queue "quick".
ATTEMPTS = 4


def facts():
    return [(call.info.retry_count, call.info.is_last_attempt) for call in calls]


def letters():
    return [(letter.task.name, letter.attempts, letter.error) for letter in get_state().list_dead_letters()]


class AttemptsContract:
    """Assertions on attempts."""

    def test_a_task_that_fails_twice_and_then_succeeds(self, site):
        acts.extend([ValueError("first"), SingularTaskFailure("second")])
        handle = startTask("play", {"n": 1}, "quick")
        site.run()
        assert facts() == [(0, False), (1, False), (2, False)]
        assert {call.info.name for call in calls} == {handle.name}
        assert len({call.info.start_id for call in calls}) == 1
        assert [call.info.context for call in calls] == [{"n": 1}] * 3
        assert [call.told[3] for call in calls] == [0, 1, 2]
        assert [call.told[4] for call in calls] == site.executions(500, 408)
        assert [call.info.previous_status for call in calls] == site.previous(500, 408)
        assert (site.count(), letters()) == (0, [])

    def test_attempts_that_are_used_up_end_in_a_dead_letter(self, site):
        always.append(ValueError("never"))
        handle = startTask("play", None, "quick")
        site.run()
        assert facts() == [(0, False), (1, False), (2, False), (3, True)]
        assert letters() == [(handle.name, ATTEMPTS, "never")]
        assert site.count() == 0

    def test_options_of_the_task_go_before_those_of_its_queue(self, site):
        always.append(ValueError("never"))
        once = startTask("play", None, "quick", retry_options=RetryOptions(max_attempts=1))
        site.run()
        assert facts() == [(0, True)]
        more = startTask(
            "play", retry_options=RetryOptions(max_attempts=ATTEMPTS + 2, min_backoff=0, max_backoff=0), name="more"
        )
        site.run()
        assert facts()[1:] == [(n, n == ATTEMPTS + 1) for n in range(ATTEMPTS + 2)]
        assert sorted(letters()) == sorted([(once.name, 1, "never"), (more.name, ATTEMPTS + 2, "never")])

    def test_a_fatal_error_ends_the_task_at_once(self, site):
        acts.append(FatalTaskError("no use"))
        handle = startTask("play_slug", {"a": "b"}, "quick", url_kwargs={"slug": "s"})
        site.run()
        assert facts() == [(0, False)]
        [letter] = get_state().list_dead_letters()
        assert (letter.task.name, letter.task.queue, letter.attempts) == (handle.name, "quick", 1)
        assert (letter.task.path, letter.task.body) == ("/tasks/play/s/", b"a=b")
        assert (letter.error, letter.error_type.rpartition(".")[2]) == ("no use", "FatalTaskError")
        assert site.count() == 0

    def test_terminating_ends_the_task(self, site):
        acts.append(lambda request: terminateTask())
        startTask("play", None, "quick")
        site.run()
        assert (facts(), site.count(), letters()) == ([(0, False)], 0, [])

    @pytest.mark.parametrize("countdown", [None, 0])
    def test_repeating_has_the_task_come_again(self, site, countdown):
        acts.extend([lambda request: repeatTask(countdown)] * 2)
        handle = startTask("play", {"n": 1}, "quick")
        site.run()
        assert facts() == [(0, False), (1, False), (2, False)]
        assert len({call.info.start_id for call in calls}) == 1
        assert [call.info.context for call in calls] == [{"n": 1}] * 3
        # A copy that was queued in the place of the task has a name of its own.
        assert len({call.info.name for call in calls} - {handle.name}) == (2 if site.copies and countdown == 0 else 0)
        assert (site.count(), letters()) == (0, [])

    def test_each_repetition_is_an_attempt(self, site):
        always.append(lambda request: repeatTask(0))
        startTask("play", None, "quick")
        site.run()
        assert facts() == [(n, n == ATTEMPTS - 1) for n in range(ATTEMPTS)]
        assert [attempts for _, attempts, _ in letters()] == [ATTEMPTS]

    def test_repeating_later_waits(self, site):
        acts.append(lambda request: repeatTask(3600))
        startTask("play", None, "quick")
        site.run()
        assert (len(calls), site.count()) == ((1, 1) if site.waits else (2, 0))
        if site.clock is not None:
            site.clock.advance(3601)
            site.run()
            assert facts() == [(0, False), (1, False)]

    def test_a_budget_that_is_used_up_is_a_failure_as_any_other(self, site):
        acts.append(lambda request: Timekeeper(0).ping())
        startTask("play", None, "quick")
        site.run()
        assert (facts(), letters()) == ([(0, False), (1, False)], [])
