"""`defer`: what each option makes of the task, and what is refused before anything is written."""

from __future__ import annotations

import asyncio
import functools
import sys
import types
from datetime import UTC, datetime, timedelta, timezone
from unittest.mock import Mock

import pytest
from django.db import transaction
from django.test import override_settings
from django.urls import include, path

from soc_tasks import (
    ConfigurationError,
    PayloadError,
    QueueNotFoundError,
    RetryOptions,
    TaskAlreadyExistsError,
    TaskHandle,
    defer,
    startTask,
)
from soc_tasks.logic import calls
from soc_tasks.logic.tasks import MAX_DELAY
from soc_tasks.meta import read_meta
from soc_tasks.models import OutboxRow, PayloadRow
from tests import site
from tests.specimen import functions
from tests.specimen.functions import Child, Maker, Point, note, two
from tests.specimen.noise import LARGE, queued

pytestmark = pytest.mark.django_db(databases=["default", "other"])

URL = "/_tasks/deferred/"


# Calls


def test_a_function_is_called_later_with_its_arguments(task_queues, called):
    handle = defer(note, 1, "two", three={"a": (3,)}, queue="an argument", name="another")
    assert called == []
    assert handle == TaskHandle(name=handle.name, queue="default", url=URL)
    task_queues.process_task_queues()
    assert called == [((1, "two"), {"three": {"a": (3,)}, "queue": "an argument", "name": "another"})]
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    ("function", "args", "wanted"),
    [
        (note, (), [((), {})]),
        (two, (1,), [((1, None), {})]),
        (functions.decorated, (1,), ["loud", 1]),
        (functions.cached, ("once",), ["once"]),
        (functions.injected, (1,), [("injected", 1)]),
        (Maker, (1,), [("made", 1)]),
        (Maker.static, (1,), [("static", 1)]),
        (Maker.Inner.static, (1,), [("inner", 1)]),
        (Maker.of_class, (1,), [("Maker", 1)]),
        (Child.of_class, (1,), [("Child", 1)]),
        (Point(1).note, ("x",), [(Point(1), "x")]),
        (functools.partial(two, 1), (2,), [((1, 2), {})]),
        (functools.partial(functools.partial(two, 1), second=3), (), [((1, 3), {})]),
        (functools.partial(note, _queue="mine"), (), [((), {"_queue": "mine"})]),
    ],
)
def test_whatever_can_be_called_by_its_name(task_queues, called, function, args, wanted):
    functions.cached.cache_clear()
    defer(function, *args)
    task_queues.process_task_queues()
    assert called == wanted


def test_the_library_and_django_can_be_deferred_too(task_queues, called, site_calls):
    defer(startTask, "behave", {"a": "b"})
    defer(defer, note, 5)
    task_queues.process_task_queues()
    assert called == [((5,), {})]
    assert len(site_calls) == 1


# Options


@pytest.mark.parametrize("queue", [None, "default", "mail"])
def test_queue(memory_backend, settings, queue):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}]
    assert defer(note, _queue=queue).queue == (queue or "default")
    assert queued(memory_backend).queue == (queue or "default")


MOMENT = datetime(2026, 11, 30, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (MOMENT, MOMENT),
        (MOMENT.replace(tzinfo=None), MOMENT),
        (MOMENT.astimezone(timezone(timedelta(hours=5))), MOMENT),
        (datetime(2001, 1, 1), datetime(2001, 1, 1, tzinfo=UTC)),
        (None, None),
    ],
)
@pytest.mark.parametrize("countdown", [None, 0, 0.0, 60, 2.5])
def test_eta_and_countdown(memory_backend, monkeypatch, given, wanted, countdown):
    now = datetime(2026, 11, 22, tzinfo=UTC)
    monkeypatch.setattr(type(memory_backend), "now", lambda self: now)
    if countdown:
        wanted = now + timedelta(seconds=countdown)
    assert defer(note, _eta=given, _countdown=countdown).eta == wanted
    assert queued(memory_backend).eta == wanted


def test_a_name_is_taken_once(memory_backend):
    assert defer(note, _name="nightly").name == "nightly"
    with pytest.raises(TaskAlreadyExistsError):
        defer(note, _name="nightly")
    assert (queued(memory_backend).name, queued(memory_backend).named) == ("nightly", True)
    assert defer(note, _name=None).name != defer(note).name


def test_where_it_runs(memory_backend, monkeypatch):
    monkeypatch.setattr(type(memory_backend), "supports_routing", True)
    defer(note, _service="s", _version="v", _instance="i", _headers={"X-Trace": "1"})
    task = queued(memory_backend)
    assert (task.service, task.version, task.instance, task.headers["X-Trace"]) == ("s", "v", "i", "1")
    assert task.path == URL
    # A dead letter is made from the call alone.
    inherited = read_meta(task).inherited
    assert (inherited.service, inherited.headers) == ("s", {"X-Trace": "1"})


@pytest.mark.parametrize(
    "given", [RetryOptions(max_attempts=3, min_backoff=2.5), {"max_attempts": 3, "min_backoff": 2.5}, {}, None]
)
def test_retry_options(memory_backend, given):
    defer(note, _retry_options=given)
    retry = queued(memory_backend).retry
    if given:
        assert retry == RetryOptions(max_attempts=3, min_backoff=2.5)
    else:
        assert retry in (None, RetryOptions())


def test_a_url_of_ones_own(memory_backend):
    defer(note, _url="tasks_deferred_handler")
    defer(note, _url=f"{URL}?mine=1")
    assert [task.path for task in memory_backend.tasks_now()] == [URL, f"{URL}?mine=1"]


@pytest.mark.parametrize("url", ["behave", "/tasks/behave/", "/ordinary/", "/gone/", "//evil.example/", "no_such_name"])
def test_a_url_that_calls_nothing_deferred_is_refused(memory_backend, url):
    with pytest.raises(ValueError, match=re_any("another view", "no task", "no URL", "neither a path")):
        defer(note, _url=url)
    assert memory_backend.tasks_now() == []


def re_any(*texts):
    return "|".join(texts)


@pytest.mark.parametrize("transactional", [None, True, False])
@pytest.mark.parametrize("using", [None, "default", "other"])
def test_in_an_atomic_block_the_task_exists_if_that_commits(task_queues, called, transactional, using):
    with transaction.atomic(using=using or "default"):
        defer(note, 1, _transactional=transactional, _using=using)
        task_queues.assertNumTasksEquals(0)
    task_queues.assertNumTasksEquals(1)
    with transaction.atomic(using=using or "default"):
        defer(note, 2, _transactional=transactional, _using=using)
        transaction.set_rollback(True, using=using or "default")
    task_queues.process_task_queues()
    assert called == [((1,), {})]


def test_the_block_of_another_alias_is_none_of_its(task_queues):
    with transaction.atomic(using="other"):
        defer(note)
        transaction.set_rollback(True, using="other")
    task_queues.assertNumTasksEquals(1)


# What is refused


def refuses(error, match, function=note, *args, **kwargs):
    with pytest.raises(error, match=match) as caught:
        defer(function, *args, **kwargs)
    return caught.value


@pytest.mark.parametrize(
    "options",
    [
        {"_quue": "default"},
        {"_delay": 5, "_queue": "default"},
        {"__soc__": 1},
        {"_": 1},
        {"_shards": 5},
        {"_target": "x"},
        {"_private": None},
    ],
)
def test_an_option_that_there_is_not_is_refused(memory_backend, options):
    error = refuses(TypeError, "has no option", **options)
    assert not isinstance(error, PayloadError)
    assert "_retry_options" in str(error)
    assert memory_backend.tasks_now() == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"_atomic": 1}, TypeError),
        ({"_atomic": None}, TypeError),
        ({"_small_task": "yes"}, TypeError),
        ({"_wipe_related_caches": 0}, TypeError),
        ({"_queue": 5}, QueueNotFoundError),
        ({"_queue": "gone"}, QueueNotFoundError),
        ({"_queue": ""}, QueueNotFoundError),
        ({"_using": "gone"}, ConfigurationError),
        ({"_using": 5}, ConfigurationError),
        ({"_using": ["default"]}, ConfigurationError),
        ({"_eta": "2026-01-01"}, ValueError),
        ({"_eta": 5}, ValueError),
        ({"_eta": datetime.now(UTC) + MAX_DELAY + timedelta(days=1)}, ValueError),
        ({"_countdown": -1}, ValueError),
        ({"_countdown": "5"}, ValueError),
        ({"_countdown": ""}, ValueError),
        ({"_countdown": False}, ValueError),
        ({"_countdown": True}, ValueError),
        ({"_countdown": timedelta(1)}, ValueError),
        ({"_countdown": float("nan")}, ValueError),
        ({"_countdown": float("inf")}, ValueError),
        ({"_countdown": 31 * 86400}, ValueError),
        ({"_name": ""}, ValueError),
        ({"_name": "a b"}, ValueError),
        ({"_name": 5}, ValueError),
        ({"_name": "x" * 501}, ValueError),
        ({"_retry_options": 5}, TypeError),
        ({"_retry_options": {"max_attempts": "x"}}, ValueError),
        ({"_retry_options": {"attempts": 5}}, TypeError),
        ({"_headers": 5}, ValueError),
        ({"_headers": {"Host": "x"}}, ValueError),
        ({"_headers": {"X-A": "a\r\nb"}}, ValueError),
        ({"_headers": {"X-SocTasks-Meta": "x"}}, ValueError),
        ({"_url": 5}, ValueError),
    ],
    ids=lambda part: str(part)[:40],
)
def test_an_option_out_of_range_is_refused(narrow, memory_backend, options, error):
    refuses(error, None, **options)
    refuses(error, None, note, "x" * 10_000, LARGE, **options)
    assert memory_backend.tasks_now() == []
    assert PayloadRow.objects.count() == 0


def test_a_duration_is_told_how_to_become_seconds(memory_backend):
    refuses(
        ValueError, r"countdown must be seconds .* Pass its total_seconds\(\)\.", note, _countdown=timedelta(hours=1)
    )
    refuses(ValueError, r"pass its total_seconds\(\) as countdown", note, _eta=timedelta(hours=1))


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (two, (), {}),
        (two, (1, 2, 3), {}),
        (two, (1,), {"third": 1}),
        (two, (1,), {"first": 1}),
        (Maker, (), {}),
        (Maker.static, (), {}),
        (Child.of_class, (), {"x": 1}),
        (Point(1).note, (), {}),
        (functools.partial(two, 1), (2, 3), {}),
    ],
)
def test_arguments_that_the_function_does_not_take_are_refused(memory_backend, function, args, kwargs):
    error = refuses(TypeError, "cannot be called with these arguments", function, *args, **kwargs)
    assert str(error).startswith("tests.specimen.functions.")
    assert memory_backend.tasks_now() == []


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (functions.wait, "async"),
        (functools.partial(functions.wait), "async"),
        (site.behave, "startTask"),
        (None, "function first"),
        ("tests.specimen.functions.note", "function first"),
        (5, "function first"),
        (Mock(), "is of type"),
        (Mock(func=None), "is of type"),
    ],
    ids=str,
)
def test_what_cannot_be_called_later_is_refused(memory_backend, function, match):
    refuses(TypeError, match, function)
    assert memory_backend.tasks_now() == []


def test_without_the_include_the_error_says_what_to_write(memory_backend):
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = []
    with override_settings(ROOT_URLCONF=conf):
        refuses(ConfigurationError, r"include\(\"soc_tasks\.urls\"\)", functions.note)
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("elsewhere/", include("soc_tasks.urls"))]
    with override_settings(ROOT_URLCONF=conf):
        assert defer(note).url == "/elsewhere/deferred/"


def test_on_a_running_event_loop_the_error_says_what_to_write(memory_backend):
    async def run():
        defer(note)

    with pytest.raises(RuntimeError, match=r"sync_to_async\(defer\)"):
        asyncio.run(run())
    assert memory_backend.tasks_now() == []


def test_a_call_that_is_signed_is_small(memory_backend):
    """What a call costs beside its arguments."""
    defer(note)
    task = queued(memory_backend)
    assert len(task.body) < 450
    assert len(read_meta(task).to_header()) < 80
    assert OutboxRow.objects.count() == 0


def test_nothing_of_the_caller_is_changed(memory_backend):
    options = {"max_attempts": 3}
    kwargs = {"x": [1], "_queue": "default", "_retry_options": options}
    defer(note, **kwargs)
    assert kwargs == {"x": [1], "_queue": "default", "_retry_options": {"max_attempts": 3}}


def test_the_name_of_a_function_is_told_for_people():
    for function, name in (
        (note, "note"),
        (functools.partial(functools.partial(note)), "note"),
        (Child.of_class, "Maker.of_class"),
        (Point(1).note, "Point.note"),
        (functions.Caller(), "Caller"),
    ):
        assert calls.describe(function) == f"tests.specimen.functions.{name}"
    assert calls.describe(Mock()).startswith("unittest.mock.")
    assert calls.describe(sys.exit) == "sys.exit"
