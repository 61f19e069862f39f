"""The state in Django's databases: receipts, dead letters, and what is swept when."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, transaction
from django.utils import timezone

from soc_tasks import ConfigurationError, Iteration, NotSupportedError, RetryOptions, startTask
from soc_tasks.logic.letters import retry_letter
from soc_tasks.meta import Meta, SliceMessage, read_meta
from soc_tasks.models import DeadLetterRow, IterationRow, OutboxRow, ReceiptRow
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter, IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.django import DjangoState
from soc_tasks.testing import TaskFailedBehaviour
from soc_tasks.values import META_HEADER, Task
from tests import site

pytestmark = pytest.mark.django_db(databases=["default", "other"])

RUN = "0123456789abcdef" * 2


def make_task(message=None, **more):
    meta = Meta(start_id="f" * 32, slice=message)
    return Task(
        **{
            "queue": "default",
            "name": "made",
            "path": "/site/tasks/behave/?a=%C3%BC",
            "script_name": "/site",
            "body": b"\x00\xff",
            "headers": {META_HEADER: meta.to_header(), "X-Trace": "1"},
            "start_id": "f" * 32,
            **more,
        }
    )


def make_letter(message=None, **more):
    return DeadLetter(**{"task": make_task(message), "attempts": 3, "error_type": "a.Error", "error": "why", **more})


@pytest.fixture
def run():
    """An iteration with two shards, in the middle of its work."""
    shards = [ShardRecord(iteration=RUN, index=index, step=2, epoch=1, cursor=f"k{index}") for index in range(2)]
    get_state().create_iteration(IterationRecord(id=RUN, name="run", unfinished=2, total=5), shards)
    return RUN


@pytest.mark.parametrize("alias", ["default", "other"])
def test_a_receipt_is_given_once(alias):
    state = get_state()
    with transaction.atomic(using=alias):
        assert state.claim_receipt("a", alias)
        assert not state.claim_receipt("a", alias)
        assert state.claim_receipt("b", alias)
    # The transaction is whole: no error has spoilt it.
    assert ReceiptRow.objects.using(alias).count() == 2


def test_a_receipt_rolls_back_with_what_it_stands_for():
    with transaction.atomic():
        get_state().claim_receipt("a", "default")
        transaction.set_rollback(True)
    assert get_state().claim_receipt("a", "default")


def test_a_dead_letter_holds_the_whole_task():
    state = get_state()
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
    assert state.get_dead_letter(letter.id + 1) is None


def test_dead_letters_are_listed_newest_first_and_deleted_by_id():
    state = get_state()
    for queue in ("default", "mail", "default"):
        state.add_dead_letter(make_letter(task=make_task(queue=queue)))
    ids = [letter.id for letter in state.list_dead_letters()]
    assert ids == sorted(ids, reverse=True)
    assert [letter.id for letter in state.list_dead_letters(queue="default")] == [ids[0], ids[2]]
    assert [letter.id for letter in state.list_dead_letters(limit=1)] == ids[:1]
    assert state.delete_dead_letters([ids[1], 10**6]) == 1
    assert state.delete_dead_letters([]) == 0
    assert len(state.list_dead_letters()) == 2


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "ü" * 10_000])
def test_whatever_an_error_says_can_be_kept(text, run):
    state = get_state()
    state.add_dead_letter(make_letter(error=text, traceback=text, error_type="x" * 1000))
    [letter] = state.list_dead_letters()
    assert letter.error.isprintable()
    with state.locked_shard(run, 0) as shard:
        shard.error = text
        state.save_shard(shard)
    assert state.list_shards(run)[0].error == letter.error


def test_the_letter_of_a_slice_fails_its_shard_and_iteration(run):
    state = get_state()
    state.add_dead_letter(make_letter(SliceMessage(iteration=run, shard=1, step=2, epoch=1)))
    iteration, shards = state.get_iteration(run), state.list_shards(run)
    assert (iteration.status, iteration.error) == ("failed", "a.Error: why")
    assert iteration.finished is not None
    assert [shard.status for shard in shards] == ["running", "failed"]
    assert (shards[1].error, shards[1].owner, shards[1].until) == ("a.Error: why", "", None)
    assert DeadLetterRow.objects.get().iteration == run


@pytest.mark.parametrize("other", [{"step": 1}, {"step": 3}, {"epoch": 0}, {"shard": 7}, {"iteration": "e" * 32}])
def test_the_letter_of_another_slice_fails_nothing(run, other):
    state = get_state()
    message = SliceMessage(**{"iteration": run, "shard": 1, "step": 2, "epoch": 1, **other})
    state.add_dead_letter(make_letter(message))
    assert state.get_iteration(run).status == "running"
    assert {shard.status for shard in state.list_shards(run)} == {"running"}
    assert len(state.list_dead_letters()) == 1


def test_letter_and_failed_shard_commit_together(run, monkeypatch):
    def fail(*_, **__):
        raise OperationalError("disk full")

    state = get_state()
    monkeypatch.setattr(DeadLetterRow, "save", fail)
    with pytest.raises(OperationalError):
        state.add_dead_letter(make_letter(SliceMessage(iteration=run, shard=1, step=2, epoch=1)))
    assert state.get_iteration(run).status == "running"
    assert {shard.status for shard in state.list_shards(run)} == {"running"}


def test_letters_of_a_resumed_iteration_are_dropped_and_no_others(run):
    state = get_state()
    state.add_dead_letter(make_letter(SliceMessage(iteration=run, shard=1, step=2, epoch=1)))
    state.add_dead_letter(make_letter())
    state.delete_letters_of(run)
    [left] = state.list_dead_letters()
    assert left.task.headers == make_task().headers


def test_a_queue_that_gives_up_leaves_a_letter(run):
    state = get_state()
    state.task_exhausted(make_task(), 5, 504)
    state.task_exhausted(make_task(SliceMessage(iteration=run, shard=0, step=2, epoch=1)), 5, 500)
    exhausted, unanswered = state.list_dead_letters()
    assert (unanswered.error_type, exhausted.error_type) == ("DeadlineExceeded", "Exhausted")
    assert "5" in unanswered.error
    assert state.get_iteration(run).status == "failed"


@pytest.mark.parametrize("other", [{"step": 1}, {"epoch": 0}, {"shard": 7}, {"iteration": "e" * 32}])
def test_a_slice_that_others_left_behind_leaves_no_letter(run, other):
    state = get_state()
    message = SliceMessage(**{"iteration": run, "shard": 1, "step": 2, "epoch": 1, **other})
    state.task_exhausted(make_task(message), 5, 0)
    assert state.list_dead_letters() == []
    # One that is to come is not left behind.
    state.task_exhausted(make_task(SliceMessage(iteration=run, shard=1, step=3, epoch=1)), 5, 500)
    assert len(state.list_dead_letters()) == 1


@pytest.mark.parametrize("status", ["cancelled", "succeeded", "failed", "paused"])
def test_a_slice_of_an_iteration_that_does_not_run_leaves_no_letter(run, status):
    state = get_state()
    record = state.get_iteration(run)
    record.status = status
    state.save_iteration(record)
    state.task_exhausted(make_task(SliceMessage(iteration=run, shard=1, step=2, epoch=1)), 5, 0)
    assert state.list_dead_letters() == []


def test_the_letter_of_a_task_that_nobody_knew_says_what_to_do(db):
    state = get_state()
    state.task_exhausted(make_task(), 0, -2)
    [letter] = state.list_dead_letters()
    assert letter.error_type == "UnknownTask"
    assert letter.error == (
        f"No worker that took it within 24 hours knew {make_task().path}, or the function that it calls. Bring that "
        "back, or deploy it to the workers, then retry this task; or discard it."
    )


def test_a_letter_that_is_retried_runs_with_all_that_it_was_started_with(task_queues, memory_backend, site_calls):
    def fail(request, **_):
        raise ValueError("x")

    site.behaviours["behave"] = fail
    retry = RetryOptions(max_attempts=1, min_backoff=2)
    startTask("behave", {"a": [1]}, headers={"X-Tenant": "t"}, retry_options=retry, dispatch_deadline=20)
    [before] = memory_backend.tasks_now()
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    [letter] = get_state().list_dead_letters()
    retry_letter(letter.id)
    [after] = memory_backend.tasks_now()
    # All but the time from which its attempts count.
    metas = [dataclasses.replace(read_meta(task), since=None) for task in (before, after)]
    assert metas[0] == metas[1]
    others = [{name: value for name, value in task.headers.items() if name != META_HEADER} for task in (before, after)]
    assert others[0] == others[1]
    assert (after.body, after.path) == (before.body, before.path)
    assert (after.retry, after.dispatch_deadline, after.start_id) == (retry, 20, before.start_id)
    site.behaviours.clear()
    task_queues.process_task_queues()
    assert site_calls[-1][1].task.context == {"a": [1]}


def test_an_iteration_is_created_once():
    state = get_state()
    first = IterationRecord(id=RUN, name="first", options={"a": [1]})
    assert state.create_iteration(first, [ShardRecord(iteration=RUN, index=0)])
    assert not state.create_iteration(IterationRecord(id=RUN, name="second"), [ShardRecord(iteration=RUN, index=0)])
    assert (state.get_iteration(RUN).name, state.get_iteration(RUN).options) == ("first", {"a": [1]})
    assert len(state.list_shards(RUN)) == 1
    assert Iteration.get(RUN).name == "first"


def test_a_locked_shard_is_changed_or_left(run):
    state = get_state()
    with state.locked_shard(run, 0) as shard:
        shard.cursor, shard.done = "next", 3
        state.save_shard(shard)
    with state.locked_shard(run, 0) as shard:
        shard.cursor = "lost"
        state.save_shard(shard)
        transaction.set_rollback(True)
    assert [shard.cursor for shard in state.list_shards(run)] == ["next", "k1"]
    with state.locked_shard(run, 9) as shard:
        assert shard is None


def test_a_shard_that_cannot_be_locked_is_busy(run, monkeypatch):
    def locked(*_):
        raise OperationalError("database is locked")

    monkeypatch.setattr(type(get_state()), "_lock_shard", locked)
    with pytest.raises(ShardBusyError), get_state().locked_shard(run, 0):
        pytest.fail("it was let in")


def test_a_lease_is_renewed_by_its_owner_alone(run):
    state, until = get_state(), timezone.now() + timedelta(seconds=60)
    with state.locked_shard(run, 0) as shard:
        shard.owner = "me"
        state.save_shard(shard)
    assert state.renew_lease(run, 0, "me", until)
    assert not state.renew_lease(run, 0, "you", until)
    assert state.list_shards(run)[0].until == until


def test_shards_are_counted_down(run):
    with get_state().atomic():
        assert [get_state().finish_shard(run) for _ in range(2)] == [1, 0]


def test_resumed_shards_get_a_new_epoch_unless_they_are_done(run):
    state = get_state()
    with state.locked_shard(run, 0) as shard:
        shard.status = "done"
        state.save_shard(shard)
    [resumed] = state.resume_shards(run)
    assert (resumed.index, resumed.epoch, resumed.step, resumed.status) == (1, 2, 2, "running")


def test_the_concurrency_of_an_iteration_is_kept(run):
    state = get_state()
    assert (state.get_iteration(run).concurrency, state.get_iteration(run).parked) == (None, 0)
    with state.atomic():
        record = state.get_iteration(run, lock=True)
        record.concurrency, record.parked, record.status = 3, 1, "unknown"
        state.save_concurrency(record)
    record = state.get_iteration(run)
    assert (record.concurrency, record.parked, record.status) == (3, 1, "running")


def test_what_is_past_the_retention_time_is_swept(run, settings):
    settings.SOC_TASKS = {"RETENTION_DAYS": 10}
    state, now = get_state(), timezone.now()
    for days in (9, 11):
        moment = now - timedelta(days=days)
        state.add_dead_letter(make_letter(error=str(days)))
        DeadLetterRow.objects.filter(error=str(days)).update(created=moment)
        for alias in ("default", "other"):
            ReceiptRow.objects.using(alias).create(start_id=str(days), created=moment)
        key = f"{days:032}"
        state.create_iteration(IterationRecord(id=key, name="x"), [ShardRecord(iteration=key, index=0)])
        IterationRow.objects.filter(pk=key).update(finished=moment)
    IterationRow.objects.filter(pk=run).update(created=now - timedelta(days=99))
    assert state.sweep() > 0
    assert [letter.error for letter in state.list_dead_letters()] == ["9"]
    for alias in ("default", "other"):
        assert list(ReceiptRow.objects.using(alias).values_list("pk", flat=True)) == ["9"]
    # What still runs stays, however old it is.
    assert {record.id for record in state.list_iterations()} == {run, f"{9:032}"}
    assert state.list_shards(f"{11:032}") == []
    assert state.sweep() == 0


def test_a_sweep_takes_some_at_a_time(monkeypatch):
    monkeypatch.setattr("soc_tasks.state.django.SWEEP_ROWS", 2)
    old = timezone.now() - timedelta(days=99)
    ReceiptRow.objects.bulk_create(ReceiptRow(start_id=str(i), created=old) for i in range(5))
    assert [get_state().sweep() for _ in range(4)] == [2, 2, 1, 0]


def test_an_unknown_state_is_an_error(settings):
    settings.SOC_TASKS = {"STATE": "datastore"}
    with pytest.raises(NotSupportedError, match="django"):
        get_state()
    settings.SOC_TASKS = {"STATE": "redis"}
    with pytest.raises(ConfigurationError, match="redis"):
        get_state()


def test_held_tasks_come_back_whole_and_oldest_first():
    state = get_state()
    tasks = [make_task(name=name, named=True) for name in ("b", "a")]
    state.hold_tasks(tasks, "other")
    assert list(state.take_held("other")) == []
    OutboxRow.objects.using("other").update(leased_until=timezone.now() - timedelta(seconds=1))
    assert [task for _, task in state.take_held("other")] == tasks
    # Taken is leased again.
    assert list(state.take_held("other")) == []


@pytest.mark.parametrize(("error", "busy"), [("database is locked", True), ("no such column: epoch", False)])
def test_only_a_lock_counts_as_busy(monkeypatch, error, busy):
    def fail(self, *_):
        raise OperationalError(error)

    monkeypatch.setattr(DjangoState, "_lock_shard", fail)
    with pytest.raises(ShardBusyError if busy else OperationalError), get_state().locked_shard("0" * 32, 0):
        pass


def test_moments_do_not_depend_on_use_tz(settings):
    settings.USE_TZ = False
    moment = datetime(2026, 10, 25, 0, 30, 0, 7, tzinfo=UTC)
    ReceiptRow.objects.create(start_id="a" * 32, created=moment)
    assert ReceiptRow.objects.get().created == moment
    assert ReceiptRow.objects.filter(created__lt=moment).count() == 0
    state = get_state()
    state.add_dead_letter(make_letter())
    assert state.list_dead_letters()[0].created.tzinfo is UTC
    state.hold_tasks([make_task()], "default")
    OutboxRow.objects.update(leased_until=moment)
    [(_, task)] = state.take_held("default")
    assert task.created.tzinfo is UTC
