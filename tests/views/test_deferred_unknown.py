"""Calls of what no release here knows: they wait for one that does, uncounted, and end as letters after a day."""

from __future__ import annotations

import dataclasses
import time

import pytest
from django.test import Client

from soc_tasks import RetryOptions, defer
from soc_tasks.backends import get_backend
from soc_tasks.logic.letters import retry_letter
from soc_tasks.meta import read_meta
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from soc_tasks.values import META_HEADER
from tests.specimen import functions
from tests.specimen.functions import note
from tests.specimen.noise import LARGE, queued
from tests.views.deferring import URL, letters, outcome, send

pytestmark = pytest.mark.django_db(databases=["default", "other"])

DAY = 86_400


@pytest.fixture
def gone(monkeypatch):
    """Give a function that brings back what was taken out of the release."""
    passing = functions.passing
    return lambda: monkeypatch.setattr(functions, "passing", passing, raising=False)


def defer_what_goes(monkeypatch, *args, **options):
    defer(functions.passing, *args, **options)
    monkeypatch.delattr(functions, "passing")
    backend = get_backend()
    backend.collect()
    return backend.tasks.pop()


def test_the_engine_is_told_to_wait(memory_backend, monkeypatch, gone, called, caplog):
    task = defer_what_goes(monkeypatch, 1)
    for retries, last in ((0, False), (7, True)):
        answer = send(task, delivery={"retry_count": retries, "is_last_attempt": last})
        assert outcome(answer) == (500, "unknown")
    assert "waits for a release" in caplog.text
    assert "tests.specimen.functions.passing" in caplog.text
    assert (letters(), called) == ([], [])
    gone()
    assert outcome(send(task)) == (200, "")
    assert called == [1]


def test_tests_see_it_as_a_failure(task_queues, monkeypatch, gone, called):
    task = defer_what_goes(monkeypatch, 1)
    get_backend().submit([task])
    with pytest.raises(TaskFailedError, match="passing"):
        task_queues.process_task_queues()
    get_backend().submit([dataclasses.replace(task, name="again")])
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert called == []


@pytest.mark.parametrize("other", [5, note, functions.Maker, None])
def test_what_the_name_leads_to_now_is_something_else(memory_backend, monkeypatch, called, other):
    defer(functions.passing, 1)
    monkeypatch.setattr(functions, "passing", other)
    assert outcome(send(queued(memory_backend))) == (500, "unknown")
    assert called == []


def test_an_app_that_this_release_does_not_have_yet(memory_backend, monkeypatch, settings, called):
    defer(functions.passing, 1)
    monkeypatch.setattr("soc_tasks.logic.references.may_be_followed", lambda module: False)
    assert outcome(send(queued(memory_backend))) == (500, "unknown")
    assert called == []


def test_an_alias_that_this_release_does_not_have_yet(memory_backend, monkeypatch, called):
    defer(functions.passing, 1, _atomic=True)
    monkeypatch.setattr("soc_tasks.logic.calls.is_known", lambda alias: alias == "other")
    assert outcome(send(queued(memory_backend))) == (500, "unknown")
    assert called == []


def test_a_module_that_fails_to_load_is_an_error_like_others(memory_backend, monkeypatch, called, caplog):
    defer(functions.passing, 1)

    def fail(name):
        raise KeyError("NOT_SET")

    monkeypatch.setattr("soc_tasks.logic.references.import_module", fail)
    assert outcome(send(queued(memory_backend))) == (500, "")
    assert "tests.specimen.functions cannot be imported: KeyError('NOT_SET')" in caplog.text
    assert letters() == []


# On Cloud Tasks


@pytest.fixture
def on_app_engine(settings, monkeypatch, memory_backend):
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
    monkeypatch.setenv("GAE_ENV", "standard")
    return memory_backend


def call(task, retries=0, **told):
    """Make a call as Cloud Tasks makes it."""
    headers = {
        "X-AppEngine-QueueName": task.queue,
        "X-AppEngine-TaskName": task.name[::-1],
        "X-AppEngine-TaskRetryCount": str(retries),
        **{name: value for name, value in task.headers.items() if name != "Content-Type"},
        **told,
    }
    return Client().generic("POST", URL, task.body, task.headers["Content-Type"], headers=headers)


def age(task, seconds):
    """Return a task that has waited for as long."""
    meta = read_meta(task)
    header = dataclasses.replace(meta, unknown_since=meta.unknown_since - seconds).to_header()
    return dataclasses.replace(task, headers={**task.headers, META_HEADER: header})


def test_cloud_tasks_gets_copies_that_count_no_attempt(on_app_engine, monkeypatch, gone, called):
    options = RetryOptions(max_attempts=5)
    task = defer_what_goes(monkeypatch, 1, _headers={"X-Trace": "1"}, _retry_options=options)
    assert outcome(call(task, retries=3)) == (200, "")
    [first] = on_app_engine.tasks_now()
    meta = read_meta(first)
    assert (first.name, first.start_id, first.named) == (f"{task.start_id}-w1", task.start_id, False)
    assert (first.body, first.path, first.headers["X-Trace"], first.retry) == (task.body, URL, "1", options)
    assert (meta.tried, meta.waits) == (3, 1)
    assert abs(meta.unknown_since - time.time()) < 60
    assert first.eta > get_backend().now()
    # A wait later, without an attempt of its own.
    on_app_engine.clear()
    assert outcome(call(age(first, 3600))) == (200, "")
    [second] = on_app_engine.tasks_now()
    assert (read_meta(second).tried, read_meta(second).waits, second.start_id) == (3, 2, task.start_id)
    assert second.name.startswith(task.start_id)
    assert second.name != first.name
    assert (second.eta - first.eta).total_seconds() > 0
    gone()
    assert outcome(call(second)) == (200, "")
    assert called == [1]
    assert letters() == []


def test_a_call_that_comes_twice_is_copied_under_one_name(on_app_engine, monkeypatch, gone):
    task = defer_what_goes(monkeypatch, 1)
    names = set()
    for _ in range(3):
        assert outcome(call(task)) == (200, "")
        names |= {copy.name for copy in on_app_engine.tasks_now()}
    assert names == {f"{task.start_id}-w1"}


def test_after_a_day_it_is_a_dead_letter_that_names_the_function(on_app_engine, monkeypatch, gone):
    task = defer_what_goes(monkeypatch, 1)
    call(task, retries=2)
    [first] = on_app_engine.tasks_now()
    on_app_engine.clear()
    assert outcome(call(age(first, DAY - 60))) == (200, "")
    assert letters() == []
    assert outcome(call(age(first, DAY + 60))) == (200, "dead")
    [letter] = letters()
    assert "tests.specimen.functions.passing" in letter.error
    assert letter.error_type.endswith("UnknownCallError")


def test_the_last_attempt_waits_too(on_app_engine, monkeypatch, gone):
    task = defer_what_goes(monkeypatch, 1, _retry_options={"max_attempts": 2})
    assert outcome(call(task, retries=1)) == (200, "")
    assert len(on_app_engine.tasks_now()) == 1
    assert letters() == []


def test_if_no_copy_can_be_queued_it_comes_again(on_app_engine, monkeypatch, gone, caplog):
    task = defer_what_goes(monkeypatch, 1)

    def fail(*_):
        raise OSError("no network")

    monkeypatch.setattr(type(on_app_engine), "enqueue", fail)
    assert outcome(call(task)) == (500, "")
    assert "could not be queued again" in caplog.text


def test_a_stored_call_waits_with_what_it_needs(on_app_engine, narrow, monkeypatch, gone, called):
    task = defer_what_goes(monkeypatch, LARGE)
    call(task)
    [copy] = on_app_engine.tasks_now()
    gone()
    assert outcome(call(copy)) == (200, "")
    assert called == [LARGE]


def test_a_letter_that_waited_is_made_after_a_retry(on_app_engine, monkeypatch, gone, called):
    task = defer_what_goes(monkeypatch, 1)
    call(task)
    [first] = on_app_engine.tasks_now()
    assert outcome(call(age(first, DAY + 60))) == (200, "dead")
    on_app_engine.clear()
    gone()
    retry_letter(letters()[0].id)
    assert outcome(call(queued(on_app_engine))) == (200, "")
    assert called == [1]


def test_a_letter_that_is_retried_does_not_meet_the_names_of_its_copies(on_app_engine, monkeypatch, gone):
    """Cloud Tasks remembers names for a while: a copy of another life would be taken for this one's."""
    task = defer_what_goes(monkeypatch, 1, _retry_options={"max_attempts": 3})
    names = []
    for _ in range(2):
        call(task)
        [first] = on_app_engine.tasks_now()
        names.append(first.name)
        on_app_engine.clear()
        call(age(first, DAY + 60))
        retry_letter(letters()[0].id)
        task = queued(on_app_engine)
        # It waits for another day.
        assert (read_meta(task).unknown_since, read_meta(task).waits) == (None, 0)
        on_app_engine.clear()
    assert len(set(names)) == 2
