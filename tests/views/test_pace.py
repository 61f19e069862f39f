"""Iterations whose batches steer themselves to a duration, and iterations that a throttle holds back."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test import override_settings

from soc_tasks import Hold, Iteration, ModelLogic, defer_iteration_with_finalize, iterative_task, startTask
from soc_tasks.backends import get_backend
from soc_tasks.logic import pacing, throttling
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests.specimen import iterating
from tests.specimen.iterating import callback, finalize
from tests.specimen.models import Row
from tests.views.calls import route

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch):
    """The time that batches and throttles see; it goes on where a view says so."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(pacing, "clock", lambda: clock.now)
    monkeypatch.setattr(throttling, "clock", lambda: clock.now)
    return clock


@pytest.fixture
def rows():
    return Row.objects.bulk_create(Row(hits=i % 3) for i in range(1500))


@pytest.fixture(autouse=True)
def nothing_noted():
    iterating.visits.clear()
    iterating.ends.clear()
    iterating.acts.clear()


def run(task_queues, clock, each, logic=Row, **options):
    """Run an iteration whose entities take `each` seconds; return the sizes of its batches."""
    sizes = []

    @iterative_task(logic, **options)
    def view(request, entities):
        sizes.append(len(entities))
        clock.now += each * len(entities)

    with route(view):
        startTask(view)
        task_queues.process_task_queues()
    assert sum(sizes) == 1500
    return sizes


def test_batches_grow_while_they_are_quick(task_queues, rows, clock):
    assert run(task_queues, clock, 0) == [100, 200, 400, 800]
    assert run(task_queues, clock, 1 / 512) == [100, 200, 400, 512, 288]


def test_batches_shrink_while_they_are_slow(task_queues, rows, clock):
    sizes = run(task_queues, clock, 1 / 8)
    assert sizes[:5] == [100, 50, 25, 12, 8]
    assert set(sizes[5:-1]) == {8}


def test_the_setting_says_how_long_batches_take(task_queues, rows, clock):
    with override_settings(SOC_TASKS={"BATCH_SECONDS": 0.125}):
        assert run(task_queues, clock, 1 / 1024)[:2] == [100, 128]


def test_a_size_that_was_given_stays(task_queues, rows, clock):
    assert set(run(task_queues, clock, 0, batch_size=300)) == {300}
    assert set(run(task_queues, clock, 0, ModelLogic(Row, batch_size=300))) == {300}
    assert set(run(task_queues, clock, 60, ModelLogic(Row), batch_size=500)) == {500}


def test_the_size_outlives_its_slice(task_queues, rows, clock):
    sizes = run(task_queues, clock, 1 / 8, time_limit=1e-6)
    assert sizes[:5] == [100, 50, 25, 12, 8]


def test_atomic_batches_are_short_where_nobody_else_can_write(task_queues, rows, clock):
    sizes = run(task_queues, clock, 1 / 128, atomic=True)
    assert sizes[:3] == ([100, 50, 26] if connection.vendor == "sqlite" else [100, 128, 128])


def test_instances_of_deferred_iterations_are_read_by_their_duration(task_queues, rows, clock, monkeypatch):
    read = []
    fetch = ModelLogic.getBatchOfData

    def note(logic, *args, **kwargs):
        entities, key = fetch(logic, *args, **kwargs)
        read.append(len(entities))
        return entities, key

    monkeypatch.setattr(ModelLogic, "getBatchOfData", note)

    def take_time(instance):
        clock.now += 0.125

    iterating.acts["callback"] = take_time
    defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _shards=1)
    task_queues.process_task_queues()
    assert [size for size in read if size > 1][:5] == [100, 50, 25, 12, 8]
    assert len(iterating.visits) == 1500


# Throttles


def held(task_queues, throttle, **options):
    """Run an iteration with a throttle as far as it goes; return it, and the sizes of its batches."""
    sizes = []

    @iterative_task(Row, batch_size=500, throttle=throttle, **options)
    def view(request, entities):
        sizes.append(len(entities))

    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
        yield Iteration.get(handle.iteration), sizes
        while True:
            task_queues.process_task_queues()
            yield Iteration.get(handle.iteration), sizes


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize(
    ("answer", "seconds", "reason"),
    [
        (Hold(90, "the replica lags"), 90, "the replica lags"),
        (120, 120, ""),
        (timedelta(minutes=5), 300, ""),
        ("office hours", throttling.DEFAULT_HOLD, "office hours"),
    ],
)
def test_a_throttle_holds_an_iteration_back_and_says_why(task_queues, rows, atomic, answer, seconds, reason):
    answers = [answer, None]
    runs = held(task_queues, lambda: answers.pop(0), atomic=atomic)
    iteration, sizes = next(runs)
    assert (iteration.status, iteration.done, sizes) == ("running", 0, [])
    assert (iteration.hold, iteration.shards[0].hold) == (reason, reason)
    [task] = get_backend().tasks
    assert abs((task.eta - get_backend().now()).total_seconds() - seconds) < 60
    iteration, sizes = next(runs)
    assert (iteration.status, iteration.done, sizes) == ("succeeded", 1500, [500, 500, 500])
    assert iteration.hold == iteration.shards[0].hold == ""


@pytest.mark.parametrize("atomic", [False, True])
def test_it_is_asked_between_batches_at_most_once_a_second(task_queues, rows, clock, atomic):
    asked = []

    def throttle():
        asked.append(clock.now)
        clock.now += 0.5
        return None if len(asked) < 2 else Hold(1, "enough")

    sizes = []

    @iterative_task(Row, batch_size=200, throttle=throttle, atomic=atomic)
    def view(request, entities):
        sizes.append(len(entities))
        clock.now += 0.25

    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
    assert asked == [100.0, 101.0]
    assert sizes == [200, 200]
    iteration = Iteration.get(handle.iteration)
    assert (iteration.done, iteration.hold) == (400, "enough")


@pytest.mark.parametrize("answer", [0, "", None, False])
def test_falsy_answers_go_on(task_queues, rows, answer):
    iteration, sizes = next(held(task_queues, lambda: answer))
    assert (iteration.status, sizes) == ("succeeded", [500, 500, 500])


@pytest.mark.parametrize("answer", [True, [], -5, float("nan"), 1e9, object()])
def test_other_answers_are_errors_of_the_slice(task_queues, rows, answer):
    with pytest.raises(TaskFailedError, match=r"throttle|Hold"):
        next(held(task_queues, lambda: answer))


def test_a_throttle_that_fails_is_tried_again(task_queues, rows):
    answers = [ValueError("no metrics"), None]

    def throttle():
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    @iterative_task(Row, throttle=throttle)
    def view(request, entities):
        pass

    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert Iteration.get(handle.iteration).done == 1500


def test_a_run_that_is_held_back_can_be_paused_resumed_and_cancelled(task_queues, rows):
    answers = [Hold(60, "first"), Hold(60, "second"), None]
    runs = held(task_queues, lambda: answers.pop(0))
    iteration, _ = next(runs)
    iteration.pause()
    iteration, sizes = next(runs)
    assert (iteration.status, sizes, len(answers)) == ("paused", [], 2)
    iteration.resume()
    iteration, _ = next(runs)
    assert iteration.hold == "second"
    iteration.cancel()
    iteration, sizes = next(runs)
    assert (iteration.status, sizes, len(answers)) == ("cancelled", [], 1)


def lagging():
    """Hold back as the test says."""
    return iterating.acts["throttle"]()


def test_deferred_iterations_take_a_throttle(task_queues, rows):
    answers = [Hold(60, "the replica lags"), None]
    iterating.acts["throttle"] = lambda: answers.pop(0) if answers else None
    handle = defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _shards=1, _throttle=lagging)
    task_queues.process_task_queues()
    assert Iteration.get(handle.iteration).hold == "the replica lags"
    task_queues.process_task_queues()
    assert len(iterating.visits) == 1500
    assert len(iterating.ends) == 1


@pytest.mark.parametrize("throttle", [5, "name", object()])
def test_what_is_no_function_is_refused(throttle):
    with pytest.raises(TypeError, match="throttle must be"):
        iterative_task(Row, throttle=throttle)


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, ValueError), (None, ValueError), ("1", ValueError), (4e6, ValueError)]
)
def test_a_hold_is_of_seconds(seconds, error):
    with pytest.raises(error, match="seconds"):
        Hold(seconds)
    with pytest.raises(TypeError, match="reason"):
        Hold(1, 5)
