"""Signals and log lines of a task's life: each told once, and nothing of what the task carries."""

from __future__ import annotations

import inspect
import logging
from contextlib import suppress
from io import BytesIO

import pytest
from django.core.signals import request_finished
from django.http import FileResponse, HttpResponse

from soc_tasks import FatalTaskError, RetryOptions, SingularTaskFailure, repeatTask, signals, startTask, terminateTask
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests import site

SECRET = "sentinel-4711"
pytestmark = pytest.mark.django_db


@pytest.fixture
def heard():
    """What the signals told, in order."""
    events = []

    def hear(signal, name):
        def receiver(**told):
            events.append((name, told))

        signal.connect(receiver, weak=False)
        return lambda: signal.disconnect(receiver)

    forget = [hear(getattr(signals, f"task_{name}"), name) for name in ("enqueued", "started", "finished")]
    yield events
    for disconnect in forget:
        disconnect()


def raising(error):
    def behaviour(request, **_):
        raise error

    return behaviour


@pytest.mark.parametrize(
    ("behaviour", "outcome", "status"),
    [
        (lambda request, **_: None, "done", 200),
        (raising(FatalTaskError("x")), "dead", 200),
        (raising(ValueError("x")), "retry", 500),
        (raising(SingularTaskFailure("x")), "retry", 408),
        (lambda request, **_: repeatTask(), "retry", 500),
    ],
)
def test_signals_tell_of_a_tasks_life(task_queues, heard, behaviour, outcome, status):
    site.behaviours["behave"] = behaviour
    handle = startTask("behave")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert [name for name, _ in heard] == ["enqueued", "started", "finished"]
    (_, enqueued), (_, started), (_, finished) = heard
    assert enqueued["sender"].__name__ == "MemoryBackend"
    assert {told["task"].name for _, told in heard} == {handle.name}
    assert started["sender"] is finished["sender"] is inspect.unwrap(site.behave)
    assert started["request"].task == started["task"]
    assert (finished["outcome"], finished["status"]) == (outcome, status)
    assert finished["seconds"] >= 0
    assert (finished["error"] is None) == (outcome == "done")


def test_a_receiver_that_breaks_changes_nothing(task_queues, site_calls, caplog):
    def broken(**_):
        raise ValueError("a receiver")

    every = [signals.task_enqueued, signals.task_started, signals.task_finished]
    for signal in every:
        signal.connect(broken)
    try:
        startTask("behave")
        task_queues.assertNumTasksEquals(1)
        task_queues.process_task_queues()
    finally:
        for signal in every:
            signal.disconnect(broken)
    assert len(site_calls) == 1
    assert sum("a receiver" in str(record.exc_info) for record in caplog.records) == 3


def test_a_task_that_is_done_leaves_one_line_in_the_log(task_queues, caplog):
    with caplog.at_level(logging.INFO):
        handle = startTask("behave")
        task_queues.process_task_queues()
    [line] = caplog.messages
    for part in ("queue=default", f"task={handle.name}", "outcome=done", "status=200", "attempt=1"):
        assert part in line


@pytest.mark.parametrize("error", [None, FatalTaskError("x"), ValueError("x"), SingularTaskFailure("x")])
def test_what_the_context_holds_is_in_no_line_of_the_log(task_queues, caplog, error):
    if error is not None:
        site.behaviours["behave"] = raising(error)
    with caplog.at_level(logging.DEBUG):
        startTask("behave", {"a": SECRET, "b": {"c": SECRET}}, retry_options=RetryOptions(max_attempts=2))
        with suppress(TaskFailedError):
            task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        with pytest.raises(TypeError):
            startTask("behave", {"a": {"b": [SECRET, object()]}})
    assert caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("answer", [terminateTask, lambda: HttpResponse(status=500), lambda: FileResponse(BytesIO())])
@pytest.mark.parametrize("view", ["behave", "behave_atomic"])
def test_django_hears_once_of_the_end_of_a_request(task_queues, site_calls, view, answer):
    finished = []
    site.behaviours[view] = lambda request, **_: finished.clear() or answer()

    def note(**_):
        finished.append(len(site_calls))

    request_finished.connect(note)
    try:
        startTask(view)
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    finally:
        request_finished.disconnect(note)
    assert finished == [1]


def test_a_file_that_a_view_answers_with_is_closed(task_queues):
    file = BytesIO(b"secret")
    site.behaviours["behave"] = lambda request, **_: FileResponse(file)
    startTask("behave")
    task_queues.process_task_queues()
    assert file.closed
