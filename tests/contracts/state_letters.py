"""Dead letters: what they keep, and what they fail."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from soc_tasks import RetryOptions, startTask
from soc_tasks.conf import get_settings
from soc_tasks.logic.letters import LetterNotFoundError, discard_letters, find_letters, retry_letter
from soc_tasks.meta import read_meta
from soc_tasks.state.base import ShardBusyError
from soc_tasks.testing import TaskFailedBehaviour
from soc_tasks.values import META_HEADER
from tests import site
from tests.contracts.state_records import make_letter, make_message, make_task, undone


class LettersContract:
    """Assertions on `state`."""

    def test_a_dead_letter_holds_the_whole_task(self, state):
        task = make_task(
            eta=datetime(2026, 1, 2, tzinfo=UTC),
            retry=RetryOptions(max_attempts=4),
            dispatch_deadline=20.5,
            service="s",
            version="v",
            instance="i",
            named=True,
        )
        state.add_dead_letter(make_letter(task=task, traceback="a\nb"))
        [letter] = state.list_dead_letters()
        assert letter.task == dataclasses.replace(task, created=letter.created)
        assert (letter.attempts, letter.error_type, letter.error, letter.traceback) == (3, "a.Error", "why", "a\nb")
        assert abs(letter.created - timezone.now()) < timedelta(minutes=1)
        assert state.get_dead_letter(letter.id) == letter
        for unknown in (letter.id + 1, 0, -1):
            assert state.get_dead_letter(unknown) is None

    def test_the_largest_task_can_be_kept(self, state):
        body = bytes(range(256)) * 4096
        state.add_dead_letter(make_letter(task=make_task(body=body)))
        [letter] = state.list_dead_letters()
        assert letter.task.body == body
        assert state.delete_dead_letters([letter.id]) == 1
        assert state.list_dead_letters() == []

    def test_dead_letters_are_found_and_grouped_by_their_error(self, state):
        for kind, queue in (("a.Error", "default"), ("b.Error", "mail"), ("a.Error", "mail"), ("", "mail")):
            letter = make_letter(task=make_task(queue=queue))
            letter.error_type, letter.error = kind, f"of {queue}"
            state.add_dead_letter(letter)
        ids = [letter.id for letter in state.list_dead_letters()]
        assert [letter.id for letter in state.list_dead_letters(error_type="a.Error")] == [ids[1], ids[3]]
        assert [letter.id for letter in state.list_dead_letters(error_type="a.Error", before=ids[1])] == [ids[3]]
        groups, is_whole = state.group_dead_letters(most=5, cap=10)
        assert [(group.error_type, group.number, group.error) for group in groups] == [
            ("", 1, "of mail"),
            ("a.Error", 2, "of mail"),
            ("b.Error", 1, "of mail"),
        ]
        assert is_whole
        assert len(state.group_dead_letters(most=2, cap=10)[0]) == 2
        assert not state.group_dead_letters(most=2, cap=10)[1]
        assert state.count_dead_letters(10, error_type="a.Error") == 2
        assert state.count_dead_letters(10, queue="mail") == 3
        assert state.count_dead_letters(10, up_to=ids[2]) == 2
        assert state.count_dead_letters(1) == 1

    def test_dead_letters_are_listed_newest_first_and_deleted_by_id(self, state):
        for queue in ("default", "mail", "default"):
            state.add_dead_letter(make_letter(task=make_task(queue=queue)))
        ids = [letter.id for letter in state.list_dead_letters()]
        assert ids == sorted(ids, reverse=True)
        assert [letter.id for letter in state.list_dead_letters(queue="default")] == [ids[0], ids[2]]
        assert [letter.id for letter in state.list_dead_letters(limit=1)] == ids[:1]
        assert [letter.id for letter in state.list_dead_letters(before=ids[0])] == ids[1:]
        assert [letter.id for letter in state.list_dead_letters(queue="default", before=ids[0])] == ids[2:]
        assert state.delete_dead_letters([ids[1], 10**6]) == 1
        assert state.delete_dead_letters([]) == 0
        assert len(state.list_dead_letters()) == 2

    @pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "ü" * 10_000])
    def test_whatever_an_error_says_can_be_kept(self, state, run, text):
        state.add_dead_letter(make_letter(error=text, traceback=text, error_type="x" * 1000))
        [letter] = state.list_dead_letters()
        assert letter.error.isprintable()
        with state.locked_shard(run, 0) as shard:
            shard.error = text
            state.save_shard(shard)
        assert state.list_shards(run)[0].error == letter.error

    def test_the_letter_of_a_slice_fails_its_shard_and_iteration(self, state, run):
        state.add_dead_letter(make_letter(make_message()))
        iteration, shards = state.get_iteration(run), state.list_shards(run)
        assert (iteration.status, iteration.error) == ("failed", "a.Error: why")
        assert iteration.finished is not None
        assert [shard.status for shard in shards] == ["running", "failed"]
        assert (shards[1].error, shards[1].owner, shards[1].until) == ("a.Error: why", "", None)

    @pytest.mark.parametrize("other", [{"step": 1}, {"step": 3}, {"epoch": 0}, {"shard": 7}, {"iteration": "e" * 32}])
    def test_the_letter_of_another_slice_fails_nothing(self, state, run, other):
        state.add_dead_letter(make_letter(make_message(**other)))
        assert state.get_iteration(run).status == "running"
        assert {shard.status for shard in state.list_shards(run)} == {"running"}
        assert len(state.list_dead_letters()) == 1

    @pytest.mark.parametrize("add", ["letter", "exhausted"])
    def test_a_letter_fails_no_shard_that_another_delivery_holds(self, state, run, add):
        def fail():
            if add == "letter":
                state.add_dead_letter(make_letter(make_message()))
            else:
                state.task_exhausted(make_task(make_message()), 5, 500, holder_died=False)

        with state.locked_shard(run, 1) as shard:
            shard.owner, shard.until = "other", state.now() + timedelta(seconds=20)
            shard.progressed_at = state.now() - timedelta(hours=1)
            state.save_shard(shard)
        with pytest.raises(ShardBusyError) as busy:
            fail()
        assert 15 < busy.value.free_in <= 20
        assert state.list_dead_letters() == []
        assert (state.list_shards(run)[1].status, state.list_shards(run)[1].owner) == ("running", "other")
        assert state.get_iteration(run).status == "running"
        with state.locked_shard(run, 1) as shard:
            shard.until = state.now()
            state.save_shard(shard)
        fail()
        assert [shard.status for shard in state.list_shards(run)] == ["running", "failed"]
        assert len(state.list_dead_letters()) == 1

    def test_the_lease_of_a_delivery_that_is_over_is_no_hindrance(self, state, run):
        with state.locked_shard(run, 1) as shard:
            shard.owner, shard.until = "dead", state.now() + timedelta(seconds=20)
            state.save_shard(shard)
        state.task_exhausted(make_task(make_message()), 5, 0)
        assert state.list_shards(run)[1].status == "failed"

    def test_a_shard_that_got_on_a_moment_ago_is_not_given_up(self, state, run):
        with state.locked_shard(run, 1) as shard:
            shard.progressed_at = state.now()
            state.save_shard(shard)
        with pytest.raises(ShardBusyError) as busy:
            state.task_exhausted(make_task(make_message()), 5, 500, holder_died=False)
        assert 0 < busy.value.free_in <= get_settings().lease_seconds
        assert state.list_shards(run)[1].status == "running"

    def test_letter_and_failed_shard_commit_together(self, state, run):
        with undone(state.atomic()):
            state.add_dead_letter(make_letter(make_message()))
        assert state.get_iteration(run).status == "running"
        assert {shard.status for shard in state.list_shards(run)} == {"running"}
        assert state.list_dead_letters() == []

    def test_letters_of_a_resumed_iteration_are_dropped_and_no_others(self, state, run):
        state.add_dead_letter(make_letter(make_message()))
        state.add_dead_letter(make_letter())
        state.delete_letters_of(run)
        [left] = state.list_dead_letters()
        assert left.task.headers == make_task().headers

    def test_a_queue_that_gives_up_leaves_a_letter(self, state, run):
        state.task_exhausted(make_task(), 5, 504)
        state.task_exhausted(make_task(make_message(shard=0)), 5, 500)
        exhausted, unanswered = state.list_dead_letters()
        assert (unanswered.error_type, exhausted.error_type) == ("DeadlineExceeded", "Exhausted")
        assert "5" in unanswered.error
        assert state.get_iteration(run).status == "failed"

    @pytest.mark.parametrize("other", [{"step": 1}, {"epoch": 0}, {"shard": 7}, {"iteration": "e" * 32}])
    def test_a_slice_that_others_left_behind_leaves_no_letter(self, state, run, other):
        state.task_exhausted(make_task(make_message(**other)), 5, 0)
        assert state.list_dead_letters() == []
        # One that is to come is not left behind.
        state.task_exhausted(make_task(make_message(step=3)), 5, 500)
        assert len(state.list_dead_letters()) == 1

    @pytest.mark.parametrize("status", ["cancelled", "succeeded", "failed", "paused"])
    def test_a_slice_of_an_iteration_that_does_not_run_leaves_no_letter(self, state, run, status):
        record = state.get_iteration(run)
        record.status = status
        state.save_iteration(record)
        state.task_exhausted(make_task(make_message()), 5, 0)
        assert state.list_dead_letters() == []

    def test_the_letter_of_a_task_that_nobody_knew_says_what_to_do(self, state):
        state.task_exhausted(make_task(), 0, -2)
        [letter] = state.list_dead_letters()
        assert letter.error_type == "UnknownTask"
        assert letter.error == (
            f"No worker that took it within 24 hours knew {make_task().path}, or the function that it calls. Bring "
            "that back, or deploy it to the workers, then retry this task; or discard it."
        )

    def test_a_letter_that_is_retried_runs_with_all_that_it_was_started_with(
        self, state, task_queues, memory_backend, site_calls
    ):
        def fail(request, **_):
            raise ValueError("x")

        site.behaviours["behave"] = fail
        retry = RetryOptions(max_attempts=1, min_backoff=2)
        startTask("behave", {"a": [1]}, headers={"X-Tenant": "t"}, retry_options=retry, dispatch_deadline=20)
        [before] = memory_backend.tasks_now()
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        [letter] = state.list_dead_letters()
        retry_letter(letter.id)
        [after] = memory_backend.tasks_now()
        # All but the time from which its attempts count.
        metas = [dataclasses.replace(read_meta(task), since=None) for task in (before, after)]
        assert metas[0] == metas[1]
        others = [
            {name: value for name, value in task.headers.items() if name != META_HEADER} for task in (before, after)
        ]
        assert others[0] == others[1]
        assert (after.body, after.path) == (before.body, before.path)
        assert (after.retry, after.dispatch_deadline, after.start_id) == (retry, 20, before.start_id)
        site.behaviours.clear()
        task_queues.process_task_queues()
        assert site_calls[-1][1].task.context == {"a": [1]}
        with pytest.raises(LetterNotFoundError):
            retry_letter(letter.id)

    def test_letters_are_found_by_what_they_say_and_discarded(self, state):
        for error in ("first", "Second", "third"):
            state.add_dead_letter(make_letter(error=error))
        [found] = find_letters(matching="second")
        assert discard_letters([found]) == 1
        assert [letter.error for letter in find_letters()] == ["third", "first"]
