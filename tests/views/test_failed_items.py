"""Trying failed items again, one run for all or some."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from soc_tasks import (
    DoNotRepeatException,
    FatalTaskError,
    Iteration,
    defer_iteration_with_finalize,
    iterative_task,
    startTask,
)
from soc_tasks.logic.failed_items import NotRetriableError, RetryRunningError
from soc_tasks.logic.selections import start_over_selection
from soc_tasks.models import FailedItemRow, IterationRow, PayloadRow
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen import iterating
from tests.specimen.iterating import callback, write
from tests.specimen.models import Row, Tag
from tests.views.calls import route
from tests.views.failing import View, defer, fail_for, ledger, names, traces
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db
both = pytest.mark.parametrize("atomic", [False, True])
NOTHING = TaskFailedBehaviour.DO_NOTHING
RETRY = TaskFailedBehaviour.RETRY_TASK


@both
@pytest.mark.parametrize("shards", [1, 3])
def test_what_succeeds_leaves_the_ledger(task_queues, rows, atomic, shards):
    bad = [rows[place] for place in (0, 5, 6, 20, 39)]
    ends = []
    view = View(bad, atomic=atomic, shards=shards, finalize=lambda: ends.append(1))
    iteration = view.run(task_queues, context={"word": "hello"})
    Tag.objects.all().delete()
    view.bad -= {bad[0].pk, bad[3].pk}
    with route(view.view):
        retry = iteration.retry_failed()
        assert (retry.status, retry.total, retry.retries) == ("running", 5, iteration.id)
        task_queues.process_task_queues()
    assert (retry.refresh().status, retry.done, retry.failed) == ("succeeded", 2, 3)
    left = iteration.failed_items()
    assert sorted(item.entity for item in left) == sorted(names([bad[1], bad[2], bad[4]]))
    assert {item.attempts for item in left} == {2}
    assert sorted(set(traces())) == [bad[0].pk, bad[3].pk]
    # It is no end of the run.
    assert ends == [1]
    assert iteration.refresh().failed == 5
    view.bad.clear()
    with route(view.view):
        again = iteration.retry_failed()
        task_queues.process_task_queues()
        assert (again.refresh().done, again.failed, iteration.count_failed_items()) == (3, 0, 0)
        assert iteration.retry_failed() is None


@both
def test_a_new_error_takes_the_place_of_the_old_one(task_queues, rows, atomic):
    view = View([rows[5]], ValueError("old"), atomic=atomic)
    iteration = view.run(task_queues)
    [before] = iteration.failed_items()
    view.error = KeyError("new")
    with route(view.view):
        iteration.retry_failed()
        task_queues.process_task_queues()
    [after] = iteration.failed_items()
    assert (after.id, after.created, after.attempts) == (before.id, before.created, 2)
    assert (after.error_type, after.error) == ("KeyError", "'new'")


def test_only_some(task_queues, rows):
    view = View(rows[3:7])
    iteration = view.run(task_queues)
    view.bad.clear()
    first, second, third, fourth = iteration.failed_items()
    with route(view.view):
        retry = iteration.retry_failed([first, third.id])
        assert retry.total == 2
        with pytest.raises(RetryRunningError, match=retry.id):
            iteration.retry_failed([second])
        # All of them: that is under way.
        assert iteration.retry_failed().id == retry.id
        task_queues.process_task_queues()
        assert iteration.failed_items() == [second, fourth]
        with pytest.raises(LookupError, match="not all of these"):
            iteration.retry_failed([first.id, second.id])
    assert len(Iteration.all()) == 2


@both
@pytest.mark.parametrize("delete", [True, False])
def test_deferred_iterations(task_queues, rows, atomic, delete):
    bad = [rows[place] for place in (0, 5, 6, 39)]
    fail_for(*bad)
    iteration = defer(task_queues, write, _atomic=atomic, _delete_marker=delete, _shards=2)
    assert bytes(PayloadRow.objects.get().data) != b""
    fail_for(bad[2])
    retry = iteration.retry_failed()
    task_queues.process_task_queues()
    assert (retry.refresh().done, retry.failed, ledger(iteration)) == (3, 1, names([bad[2]]))
    assert bytes(PayloadRow.objects.get().data) != b""
    iterating.acts.clear()
    iteration.retry_failed()
    task_queues.process_task_queues()
    # What is not atomic leaves its trace even where it fails then.
    assert (traces() if atomic else sorted(set(traces()))) == [row.pk for row in rows]
    assert len(iterating.ends) == 1
    # Nobody needs it any more.
    assert bytes(PayloadRow.objects.get().data) == b""


@pytest.mark.parametrize("few", [0, 1000])
def test_what_is_gone_leaves_the_ledger(task_queues, rows, monkeypatch, few):
    monkeypatch.setattr("soc_tasks.views.deferred_iterations.FEW_ROWS", few)
    Row.objects.update(hits=1)
    fail_for(*rows[3:8])
    handle = defer_iteration_with_finalize(Row.objects.filter(hits=1), callback, iterating.finalize, _on_error="skip")
    task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    rows[3].delete()
    Row.objects.filter(pk=rows[4].pk).update(hits=2)
    iterating.acts.clear()
    before = len(iterating.visits)
    iteration.retry_failed()
    task_queues.process_task_queues()
    assert [visit[0] for visit in iterating.visits[before:]] == [row.pk for row in rows[5:8]]
    assert iteration.failed_items() == []


def test_all_are_gone(task_queues, rows):
    iteration = View(rows).run(task_queues)
    Row.objects.all().delete()
    view = View([])
    with route(view.view):
        retry = iteration.retry_failed()
        task_queues.process_task_queues()
    assert (retry.refresh().status, retry.done, iteration.failed_items()) == ("succeeded", 0, [])
    assert view.batches == []


@both
def test_every_delivery_twice_and_late(memory_backend, task_queues, rows, atomic):
    view = View(rows[3:12], atomic=atomic, time_limit=1e-9, batch_size=2)
    iteration = view.run(task_queues)
    Tag.objects.all().delete()
    view.bad = {rows[5].pk}
    delivered = []
    with route(view.view):
        iteration.retry_failed()
        iteration.retry_failed()
        while tasks := memory_backend.tasks_now():
            memory_backend.tasks[:] = []
            for one in [*tasks, *delivered[-12:], *tasks]:
                memory_backend.tasks.insert(0, one)
                deliver_first(memory_backend)
            delivered += tasks
    good = [row.pk for row in rows[3:12] if row != rows[5]]
    assert (traces() if atomic else sorted(set(traces()))) == good
    [item] = iteration.failed_items()
    assert (item.entity, item.attempts) == (*names([rows[5]]), 2)


def test_a_retry_that_was_overtaken_does_nothing(task_queues, rows):
    """One that fails leaves what is left to the next; resumed after that, it finds nothing to do."""
    view = View(rows[3:8], atomic=True)
    iteration = view.run(task_queues)
    view.error = FatalTaskError("broken")
    with route(view.view):
        first = iteration.retry_failed()
        task_queues.process_task_queues(failure_behaviour=NOTHING)
        assert first.refresh().status == "failed"
        view.bad.clear()
        second = iteration.retry_failed()
        first.resume()
        task_queues.process_task_queues()
    assert (second.refresh().done, first.refresh().status, first.done) == (5, "succeeded", 0)
    assert len(traces()) == len(set(traces())) == 40


def test_a_retry_that_was_cancelled_in_its_batch_undoes_what_another_has_done(task_queues, rows):
    view = View(rows[3:8], atomic=True)
    iteration = view.run(task_queues)
    work = view.work

    def overtaken(request, entities, context):
        work(request, entities, context)
        if request.task.iteration != iteration.id:
            # As if the next retry had done them by now.
            FailedItemRow.objects.all().delete()

    view.bad.clear()
    again = View([], atomic=True)
    again.work = overtaken
    again.view = iterative_task(Row, on_error="skip", atomic=True)(overtaken)
    with route(again.view):
        iteration.retry_failed()
        task_queues.process_task_queues(failure_behaviour=NOTHING)
    # Rolled back with the batch.
    assert len(traces()) == 35
    assert iteration.count_failed_items() == 5


def test_a_retry_is_paused_and_resumed(task_queues, rows):
    fail_for(*rows[3:9])
    iteration = defer(task_queues, _batch_size=2)
    iterating.acts["callback"] = lambda instance: instance.pk == rows[5].pk and Iteration.all()[0].pause()
    retry = iteration.retry_failed()
    task_queues.process_task_queues()
    assert retry.refresh().status == "paused"
    assert 0 < retry.done < 6
    iterating.acts.clear()
    retry.resume()
    task_queues.process_task_queues()
    assert (retry.refresh().status, retry.done, iteration.count_failed_items()) == ("succeeded", 6, 0)
    assert sorted(visit[0] for visit in iterating.visits) == [row.pk for row in rows]


def test_while_the_iteration_stands_its_items_can_be_tried(task_queues, rows):
    fail_for(*rows[3:9])
    iteration = defer(task_queues, behaviour=NOTHING, _error_budget=2)
    assert iteration.status == "failed"
    iterating.acts.clear()
    iteration.retry_failed()
    task_queues.process_task_queues()
    assert iteration.failed_items() == []
    # Its plan is needed yet.
    iteration.resume()
    task_queues.process_task_queues()
    assert (iteration.refresh().status, iteration.done, iteration.failed) == ("succeeded", 38, 2)
    assert sorted(visit[0] for visit in iterating.visits) == [row.pk for row in rows]
    assert bytes(PayloadRow.objects.get().data) == b""


def test_a_retry_knows_whose_items_it_tries(task_queues, rows):
    view = View(rows[3:5])
    iteration = view.run(task_queues)
    with route(view.view):
        retry = iteration.retry_failed()
        task_queues.process_task_queues()
        assert retry.failed_items() == iteration.failed_items()
        again = retry.retry_failed()
        assert again.retries == iteration.id
        task_queues.process_task_queues()
    assert [item.attempts for item in iteration.failed_items()] == [3, 3]


def test_cancelled_with_failed_items_it_can_be_tried_and_without_its_plan_it_cannot(task_queues, rows):
    fail_for(*rows[3:5])
    iteration = defer(task_queues, behaviour=NOTHING, _error_budget=1).cancel()
    assert iteration.status == "cancelled"
    PayloadRow.objects.update(data=b"")
    with pytest.raises(NotRetriableError, match="start it anew"):
        iteration.retry_failed()
    fail_for(*rows[3:5])
    other = defer(task_queues, behaviour=NOTHING, _error_budget=1).cancel()
    iterating.acts.clear()
    other.retry_failed()
    task_queues.process_task_queues()
    assert other.failed_items() == []


@pytest.mark.django_db(databases=["default", "other"])
def test_the_ledger_is_swept_with_its_iteration(task_queues, rows, settings):
    view = View(rows[3:5])
    iteration = view.run(task_queues)
    get_state().sweep()
    assert FailedItemRow.objects.count() == 2
    settings.SOC_TASKS = {"RETENTION_DAYS": 1}
    IterationRow.objects.update(finished=datetime(2020, 1, 1, tzinfo=UTC))
    get_state().sweep()
    assert FailedItemRow.objects.count() == 0
    with pytest.raises(Iteration.DoesNotExist, match="retention"):
        iteration.retry_failed()


def test_a_key_of_external_effects_stays_the_same(task_queues, rows):
    keys, bad = [], {rows[-1]}

    def work(request, entities):
        iteration = Iteration.get(request.task.iteration)
        keys.extend(f"{iteration.retries or iteration.id}:{entity.pk}" for entity in entities)
        if bad & set(entities):
            raise ValueError("on purpose")

    view = iterative_task(Row, on_error="skip")(work)
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
        before = set(keys)
        keys.clear()
        bad.clear()
        Iteration.get(handle.iteration).retry_failed()
        task_queues.process_task_queues()
    assert keys == [f"{handle.iteration}:{rows[-1].pk}"]
    assert set(keys) < before


def test_a_selection_stays_one(task_queues, rows):
    view = View(rows[3:6])
    with route(view.view):
        handle = start_over_selection(view.view, Row.objects.filter(pk__lt=rows[8].pk))
        task_queues.process_task_queues()
        iteration = Iteration.get(handle.iteration)
        assert (iteration.done, iteration.failed) == (5, 3)
        view.bad.clear()
        iteration.retry_failed()
        task_queues.process_task_queues()
    assert sorted(set(traces())) == [row.pk for row in rows[:8]]
    assert iteration.failed_items() == []
    assert bytes(PayloadRow.objects.get().data) == b""


@both
def test_a_retry_that_begins_before_the_last_batch_asks_not_to_repeat_is_kept(task_queues, rows, atomic):
    retries = []

    def work(request, entities):
        iteration = Iteration.get(request.task.iteration)
        if iteration.retries is None and entities[-1] == rows[-1]:
            retries.append(iteration.retry_failed())
            raise DoNotRepeatException
        if iteration.retries is None and rows[0] in entities:
            raise ValueError("on purpose")
        for entity in entities:
            Tag.objects.create(name=str(entity.pk))

    view = iterative_task(Row, 3600, on_error="skip", atomic=atomic, batch_size=4)(work)
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
    [retry] = retries
    assert (retry.refresh().status, retry.done) == ("succeeded", 1)
    assert traces().count(rows[0].pk) == 1
    assert Iteration.get(handle.iteration).failed_items() == []
    # Nor does it repeat itself.
    assert len(Iteration.all()) == 2
    assert task_queues.get_task_count() == 0
