"""`on_error="skip"`: what fails alone is given up with its error, and nothing else is."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.http import HttpResponse

from soc_tasks import (
    BackendUnavailableError,
    FatalTaskError,
    Iteration,
    ModelLogic,
    RetryOptions,
    SingularTaskFailure,
    defer_iteration_with_finalize,
    iterative_task,
    repeatTask,
    startTask,
)
from soc_tasks.logic.atomic_slices import AtomicRun
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan, find_problem
from soc_tasks.models import FailedItemRow, ShardRow
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests.specimen import iterating
from tests.specimen.iterating import callback, finalize, write
from tests.specimen.models import Entry, Row
from tests.specimen.rows import make_entries
from tests.views.calls import route
from tests.views.failing import View, defer, fail_for, ledger, names, traces
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db
RETRY = TaskFailedBehaviour.RETRY_TASK
both = pytest.mark.parametrize("atomic", [False, True])


@both
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("time_limit", [None, 1e-9])
@pytest.mark.parametrize("places", [[0], [39], [15, 16], [3, 20, 21, 22, 37], range(16)])
def test_what_fails_alone_is_given_up(task_queues, rows, atomic, shards, time_limit, places):
    bad = [rows[place] for place in places]
    view = View(bad, atomic=atomic, shards=shards, time_limit=time_limit)
    iteration = view.run(task_queues)
    assert (iteration.status, iteration.done, iteration.failed) == ("succeeded", 40 - len(bad), len(bad))
    assert sum(shard.failed for shard in iteration.shards) == len(bad)
    assert sorted(ledger(iteration)) == sorted(names(bad))
    good = [row.pk for row in rows if row not in bad]
    # What is atomic leaves no trace of a batch that failed.
    assert (traces() if atomic else sorted(set(traces()))) == good
    assert get_state().list_dead_letters() == []


@both
def test_the_item_tells_of_its_error(task_queues, rows, atomic):
    iteration = View([rows[5]], KeyError("the \x00 key"), atomic=atomic).run(task_queues)
    [item] = iteration.failed_items()
    assert (item.entity, item.error_type, item.error) == (f"specimen.Row {rows[5].pk}", "KeyError", "'the \\x00 key'")
    assert "raise type(self.error)" in item.traceback
    assert (item.attempts, item.iteration, item.shard) == (1, iteration.id, 0)
    assert item.created >= iteration.created


@both
def test_a_batch_is_halved_and_grows_back(task_queues, rows, atomic):
    view = View([rows[5]], atomic=atomic)
    view.run(task_queues)
    first = rows[0].pk
    assert [(batch[0] - first, len(batch)) for batch in view.batches] == [
        (0, 16), (0, 8), (0, 4), (4, 2), (4, 1), (5, 1), (6, 2), (8, 4), (12, 8), (20, 16), (36, 4),
    ]  # fmt: skip


@both
def test_a_failure_that_does_not_come_again_costs_no_entity(task_queues, rows, atomic):
    view = View([rows[5]], atomic=atomic)
    work, first = view.work, rows[0].pk

    def fail_once(request, entities, context):
        try:
            work(request, entities, context)
        finally:
            view.bad.clear()

    view.view = iterative_task(Row, batch_size=16, on_error="skip", atomic=atomic)(fail_once)
    iteration = view.run(task_queues)
    assert (iteration.done, iteration.failed) == (40, 0)
    assert [len(batch) for batch in view.batches if batch[0] >= first + 16][-1] > 1


@both
def test_what_was_halved_goes_on_where_a_delivery_ended(memory_backend, rows, atomic):
    """Every delivery a second time, whose slices end after each try."""
    view = View([rows[5], rows[6], rows[30]], atomic=atomic, time_limit=1e-9)
    with route(view.view):
        startTask(view.view)
        while tasks := memory_backend.tasks_now():
            memory_backend.tasks[:] = []
            for one in [*tasks, *tasks]:
                memory_backend.tasks.insert(0, one)
                deliver_first(memory_backend)
    [iteration] = Iteration.all()
    assert (iteration.status, iteration.done, iteration.failed) == ("succeeded", 37, 3)
    assert ledger(iteration) == names([rows[5], rows[6], rows[30]])
    # No try is made twice.
    assert len({tuple(batch) for batch in view.batches}) == len(view.batches)


@pytest.mark.parametrize("place", [5, 6, 12])
def test_what_another_shard_took_over_meanwhile_is_left_to_it(task_queues, rows, place, monkeypatch):
    """An atomic shard is free for a moment between the try that failed and what is written down of it."""
    view, pass_over = View([rows[5]], atomic=True), AtomicRun._pass_over

    def taken(run):
        if len(view.batches) == 6:
            ShardRow.objects.update(end=ModelLogic(Row).get_key(rows[place]))
        return pass_over(run)

    monkeypatch.setattr(AtomicRun, "_pass_over", taken)
    iteration = view.run(task_queues)
    assert ledger(iteration) == names(rows[5:6] if place > 5 else [])
    assert traces() == [row.pk for row in rows[:place] if row != rows[5]]


@both
@pytest.mark.parametrize("error", [FatalTaskError("broken")])
def test_a_fatal_error_still_ends_the_run(task_queues, rows, atomic, error):
    view = View([rows[20]], error, atomic=atomic)
    iteration = view.run(task_queues, TaskFailedBehaviour.DO_NOTHING)
    assert (iteration.status, iteration.done, iteration.failed) == ("failed", 16, 0)
    view.bad.clear()
    with route(view.view):
        iteration.resume()
        task_queues.process_task_queues()
    assert (iteration.refresh().status, iteration.done) == ("succeeded", 40)


@both
@pytest.mark.parametrize(
    "error",
    [
        SingularTaskFailure("later"),
        OperationalError("the disk is full"),
        BackendUnavailableError("no queue"),
    ],
)
def test_what_is_nobodys_fault_is_tried_again(task_queues, rows, atomic, error):
    view = View([rows[20]], error, atomic=atomic)
    with pytest.raises(TaskFailedError):
        view.run(task_queues, RETRY, retry_options=RetryOptions(max_attempts=3))
    [iteration] = Iteration.all()
    assert (iteration.status, iteration.done, iteration.failed) == ("failed", 16, 0)
    assert {len(batch) for batch in view.batches} == {16}
    assert FailedItemRow.objects.count() == 0


@pytest.mark.parametrize("answer", [repeatTask(), HttpResponse(status=400)])
def test_an_answer_that_asks_for_another_attempt_gets_one(task_queues, rows, answer):
    view = iterative_task(Row, on_error="skip")(lambda request, entities: answer)
    with route(view):
        startTask(view)
        with pytest.raises(TaskFailedError):
            task_queues.process_task_queues()
    assert FailedItemRow.objects.count() == 0


def test_a_view_that_spoils_its_transaction_has_failed(task_queues, rows):
    entry = make_entries(1)[0]

    def spoil(request, entities):
        if rows[20] in entities:
            # Caught inside of the transaction, which can only be rolled back then.
            try:
                with transaction.atomic(savepoint=False):
                    Entry.objects.create(
                        code=entry.code, count=1, day=entry.day, slot=entry.slot, span=entry.span, flag=True
                    )
            except IntegrityError:
                return

    view = iterative_task(Row, on_error="skip", atomic=True, batch_size=16)(spoil)
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
    assert ledger(Iteration.get(handle.iteration)) == names([rows[20]])


class Numbers:
    """A logic of one's own."""

    def getBatchOfData(self, start_key=None, batch_size=None):
        first, size = int(start_key or 0), batch_size or 8
        return list(range(first, min(30, first + size))), str(first + size) if first + size < 30 else None


def test_a_logic_of_ones_own(task_queues):
    seen = []

    def work(request, entities):
        if {0, 13, 29} & set(entities):
            raise ValueError(entities)
        seen.extend(entities)

    view = iterative_task(Numbers(), on_error="skip")(work)
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
        iteration = Iteration.get(handle.iteration)
        assert [item.entity for item in iteration.failed_items()] == ["0", "13", "29"]
        assert sorted(seen) == sorted(set(range(30)) - {0, 13, 29})
        iteration.retry_failed()
        task_queues.process_task_queues()
    assert [item.attempts for item in iteration.failed_items()] == [2, 2, 2]


class Whole:
    """Knows no batch size."""

    def getBatchOfData(self, start_key=None):
        return [1, 2, 3], None


class Deaf(Numbers):
    """Takes one, and does not go by it."""

    def getBatchOfData(self, start_key=None, batch_size=None):
        return super().getBatchOfData(start_key)


def test_a_logic_whose_batches_cannot_be_halved_is_refused(task_queues):
    assert "takes no batch_size" in find_problem(Plan(logic=Whole(), on_error="skip"))
    assert find_problem(Plan(logic=Whole())) is None
    view = View([], logic=Whole())
    with pytest.raises(TaskFailedError, match="takes no batch_size"):
        view.run(task_queues)
    deaf = View([], logic=Deaf())
    deaf.work = deaf.view = iterative_task(Deaf(), on_error="skip")(lambda request, entities: 1 / 0)
    with pytest.raises(TaskFailedError, match="asked for 4 entities and returned 8"):
        deaf.run(task_queues)


def test_bad_options_are_refused():
    for options in ({"on_error": "stop"}, {"on_error": None}):
        with pytest.raises(ValueError, match="on_error must be"):
            iterative_task(Row, **options)
    for budget in (-1, 0.0, 1.0, 1.5, True, "5", float("nan")):
        with pytest.raises(ValueError, match="error_budget must be"):
            iterative_task(Row, on_error="skip", error_budget=budget)
        with pytest.raises((ValueError, TypeError), match="_error_budget must be"):
            defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _on_error="skip", _error_budget=budget)
    with pytest.raises(ValueError, match="error_budget counts"):
        iterative_task(Row, error_budget=5)
    with pytest.raises(ValueError, match="_error_budget counts"):
        defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _error_budget=5)


# Functions for each instance


def visited():
    return sorted(visit[0] for visit in iterating.visits)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("hurry", [False, True])
@pytest.mark.parametrize("places", [[0], [39], [15, 16], [3, 20, 21, 22, 37], range(16)])
def test_an_instance_that_fails_stands_alone_at_once(task_queues, rows, shards, hurry, places, monkeypatch):
    if hurry:
        monkeypatch.setattr(Budget, "is_used_up", lambda self: True)
    bad = [rows[place] for place in places]
    tried = fail_for(*bad)
    iteration = defer(task_queues, _shards=shards)
    assert sorted(tried) == [row.pk for row in bad]
    assert visited() == [row.pk for row in rows if row not in bad]
    assert (iteration.status, iteration.done, iteration.failed) == ("succeeded", 40 - len(bad), len(bad))
    assert sorted(ledger(iteration)) == sorted(names(bad))
    # The shards are gone.
    assert (iteration.shards, len(iterating.ends)) == ([], 1)
    assert iteration.time_left.total_seconds() == 0


@pytest.mark.parametrize("places", [[0], [39], [15, 16], [3, 20, 21, 22, 37], range(16)])
def test_atomic_instances_leave_no_trace_of_a_batch_that_failed(task_queues, rows, places):
    bad = [rows[place] for place in places]
    fail_for(*bad)
    iteration = defer(task_queues, write, _atomic=True)
    assert traces() == [row.pk for row in rows if row not in bad]
    assert sorted(ledger(iteration)) == sorted(names(bad))


def test_an_order_of_ones_own(task_queues):
    entries = make_entries(40)
    tried = fail_for(*entries[5:9])
    handle = defer_iteration_with_finalize(
        Entry.objects.all(), callback, finalize, order_field="title", _on_error="skip", _batch_size=7
    )
    task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    assert sorted(tried) == [entry.pk for entry in entries[5:9]]
    # It stands elsewhere by now, and is the same.
    Entry.objects.filter(pk__in=tried).update(title="zzz")
    iterating.acts.clear()
    iteration.retry_failed()
    task_queues.process_task_queues()
    assert visited() == [entry.pk for entry in entries]
    assert iteration.failed_items() == []


def test_do_not_repeat_means_nothing_to_a_callback(task_queues, rows):
    from soc_tasks import DoNotRepeatException

    fail_for(*rows[3:6], error=DoNotRepeatException)
    for on_error in ("skip", "retry"):
        iterating.visits.clear()
        iteration = defer(task_queues, _on_error=on_error)
        assert (iteration.done, iteration.failed, len(iterating.visits)) == (40, 0, 37)


# Error budgets


@both
@pytest.mark.parametrize(("budget", "given_up"), [(0, 0), (4, 4), (0.1, 4), (0.099, 3), (10, 10)])
def test_a_budget_that_is_exceeded_ends_the_run(task_queues, rows, atomic, budget, given_up):
    bad = rows[2:13]
    view = View(bad, atomic=atomic, error_budget=budget)
    iteration = view.run(task_queues, TaskFailedBehaviour.DO_NOTHING)
    assert (iteration.status, iteration.failed, iteration.done) == ("failed", given_up, 2)
    assert ledger(iteration) == names(bad[:given_up])
    assert f"{given_up + 1} of {given_up + 3} entities failed, more than error_budget={budget!r}" in iteration.error
    assert f"tasks iterations resume {iteration.id}" in iteration.error
    assert names(bad)[given_up] in iteration.error
    assert len(get_state().list_dead_letters()) == 1
    # Once more the same: what was before counts no more, and the last one is tried again.
    view.bad = {row.pk for row in bad[given_up + 1 :]} if given_up < 5 else set()
    with route(view.view):
        for _ in range(12):
            if iteration.resume().status == "running":
                task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
            if iteration.refresh().status == "succeeded":
                break
            view.bad.discard(min(view.bad - {int(item.entity.split()[1]) for item in iteration.failed_items()}))
    assert iteration.status == "succeeded"
    assert iteration.done + iteration.failed == 40
    assert len(ledger(iteration)) == iteration.failed


def test_a_budget_that_is_not_exceeded(task_queues, rows):
    iteration = View(rows[2:13], error_budget=11).run(task_queues)
    assert (iteration.status, iteration.failed) == ("succeeded", 11)


@both
def test_the_budget_is_that_of_all_shards_and_stops_them_all(task_queues, rows, atomic):
    fail_for(*rows[::4])
    iteration = defer(
        task_queues, write, TaskFailedBehaviour.DO_NOTHING, _shards=4, _atomic=atomic, _error_budget=5, _batch_size=2
    )
    assert (iteration.status, iteration.failed) == ("failed", 5)
    assert iterating.ends == []
    iterating.acts.clear()
    iteration.resume()
    task_queues.process_task_queues()
    assert (iteration.refresh().status, iteration.failed, iteration.done) == ("succeeded", 5, 35)
    assert len(iterating.ends) == 1


def test_a_pause_is_no_new_budget(task_queues, rows):
    tried = fail_for(*rows[:10])
    iterating.acts["callback"] = _paused_at(iterating.acts["callback"], rows[4], tried)
    iteration = defer(task_queues, behaviour=TaskFailedBehaviour.DO_NOTHING, _error_budget=7)
    assert (iteration.status, iteration.failed) == ("paused", 4)
    iteration.resume()
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert (iteration.refresh().status, iteration.failed) == ("failed", 7)


def _paused_at(act, row, tried):
    def pause(instance):
        if instance.pk == row.pk and instance.pk not in tried:
            Iteration.all()[0].pause()
        act(instance)

    return pause
