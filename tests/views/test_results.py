"""What `finalize` gets to know of its iteration: how many entities were done, and how many given up."""

from __future__ import annotations

import functools
import types

import pytest
from django.urls import path

from soc_tasks import Iteration, defer_iteration_with_finalize, startTask, task
from soc_tasks.testing import TaskFailedBehaviour
from soc_tasks.values import IterationResult
from tests.specimen import iterating
from tests.specimen.models import Row
from tests.views.failing import View, fail_for

pytestmark = pytest.mark.django_db
both = pytest.mark.parametrize("atomic", [False, True])
NOTHING = TaskFailedBehaviour.DO_NOTHING
RETRY = TaskFailedBehaviour.RETRY_TASK


def check_result(result, iteration, done, failed):
    assert (result.iteration, result.done, result.failed, result.total) == (iteration.id, done, failed, 40)
    assert result.seconds > 0


@both
def test_a_function_gets_the_same_counts_at_each_attempt(task_queues, rows, atomic):
    results = []

    def finalize(context, result):
        results.append(result)
        if len(results) < 3:
            raise ValueError("on purpose")

    iteration = View(rows[3:5], finalize=finalize, shards=3, atomic=atomic).run(task_queues, RETRY)
    assert results == results[:1] * 3
    check_result(results[0], iteration, 38, 2)


def test_deferred_functions_get_it_beside_their_arguments(task_queues, rows, monkeypatch):
    results = []
    monkeypatch.setattr(iterating, "acts", {})
    fail_for(rows[3])

    def run(name, function, *args, **kwargs):
        function.__module__, function.__qualname__ = "tests.specimen.iterating", name
        monkeypatch.setattr(iterating, name, function, raising=False)
        return defer_iteration_with_finalize(
            Row.objects.all(), iterating.callback, function, None, "pk", "default", 1, True, None, *args,
            _on_error="skip", **kwargs,
        )  # fmt: skip

    def beside(word, result=None, **more):
        results.append((word, result, more))

    def own(word, result):
        results.append((word, result))

    def nothing(*args, **more):
        results.append((args, more))

    run("beside", beside, "hello", other=5)
    run("own", own, "hello", 5)
    run("own", own, "hello", result=6)
    run("nothing", nothing, "hello")
    run("own", own, "hello")
    task_queues.process_task_queues()
    assert results[0][0] == "hello"
    assert results[0][2] == {"other": 5}
    assert (results[0][1].done, results[0][1].failed) == (39, 1)
    # What the caller gives goes first.
    assert results[1:4] == [("hello", 5), ("hello", 6), (("hello",), {})]
    assert results[4][1].failed == 1


def test_a_partial_keeps_what_it_was_given(task_queues, rows):
    results = []

    def finalize(result):
        results.append(result)

    View([], finalize=functools.partial(finalize, result=5)).run(task_queues)
    View([], finalize=functools.partial(finalize)).run(task_queues)
    assert results[0] == 5
    assert results[1].done == 40


@pytest.mark.parametrize("by_name", [False, True])
def test_a_task_view_gets_it_by_keyword(task_queues, rows, settings, by_name):
    results = []

    @task
    def last(request, result=None):
        results.append((result, request.task.context))

    view = View(rows[3:5], finalize="last" if by_name else last)
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("view/", view.view), path("last/", last, name="last")]
    settings.ROOT_URLCONF = conf
    handle = startTask(view.view, {"word": "hello"})
    task_queues.process_task_queues()
    [(result, context)] = results
    assert isinstance(result, IterationResult)
    check_result(result, Iteration.get(handle.iteration), 38, 2)
    assert context == {"word": "hello"}
    # Started by itself, there is none.
    startTask(last)
    task_queues.process_task_queues()
    assert results[1][0] is None


def test_a_view_that_does_not_take_it_is_started_as_before(task_queues, rows, settings):
    calls = []

    @task
    def last(request, **kwargs):
        calls.append(kwargs)

    view = View([], finalize=last)
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("view/", view.view), path("last/", last)]
    settings.ROOT_URLCONF = conf
    startTask(view.view)
    task_queues.process_task_queues()
    assert calls == [{}]
