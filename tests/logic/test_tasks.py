"""`startTask` and `startTasks`: what is refused, what is kept, and that nothing is queued where anything is wrong."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.http import QueryDict

from soc_tasks import (
    ConfigurationError,
    EnqueueError,
    QueueNotFoundError,
    RetryOptions,
    TaskAlreadyExistsError,
    TaskHandle,
    TaskRequest,
    TaskTooLargeError,
    startTask,
    startTasks,
)
from soc_tasks.backends.base import MAX_TASK_BYTES


def refused(error, *args, **arguments):
    with pytest.raises(error) as caught:
        startTask("behave", *args, **arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    "queue", ["", " ", "a b", "a\n", "default\n", "../b", "a/tasks/b", "a" * 101, "unknown", "Default", None, 5, ["a"]]
)
def test_an_unknown_queue_is_refused(task_queues, queue):
    for error in (QueueNotFoundError, ValueError, EnqueueError):
        refused(error, None, queue)
    task_queues.assertNumTasksEquals(0)


def test_a_configured_queue_is_taken(task_queues, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail-1"}]
    assert startTask("behave", None, "mail-1").queue == "mail-1"
    assert startTask("behave", queue="default").queue == "default"
    assert task_queues.get_task_count("mail-1") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"countdown": -1},
        {"countdown": -0.001},
        {"countdown": float("nan")},
        {"countdown": float("inf")},
        {"countdown": 30 * 86400 + 1},
        {"countdown": "5"},
        {"countdown": True},
        {"countdown": timedelta(seconds=5)},
        {"eta": datetime(2026, 1, 1)},
        {"eta": "2026-01-01T00:00:00Z"},
        {"eta": 5},
        {"eta": datetime.max.replace(tzinfo=UTC)},
        {"name": ""},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "../b"},
        {"name": "a/tasks/b"},
        {"name": "ü"},
        {"name": "a" * 501},
        {"name": 5},
        {"name": b"a"},
        {"dispatch_deadline": 0},
        {"dispatch_deadline": -1},
        {"dispatch_deadline": float("nan")},
        {"dispatch_deadline": 86_416},
        {"dispatch_deadline": "10"},
        {"dispatch_deadline": True},
        {"retry_options": {"max_attempts": 3}},
        {"retry_options": 3},
        {"headers": [("X-A", "1")]},
        {"headers": "X-A: 1"},
        {"headers": {"": "1"}},
        {"headers": {"X A": "1"}},
        {"headers": {"X_A": "1"}},
        {"headers": {"X-A\r\nX-B": "1"}},
        {"headers": {"X-A:": "1"}},
        {"headers": {"X-Ä": "1"}},
        {"headers": {5: "1"}},
        {"headers": {"X-A": "1\r\nX-AppEngine-QueueName: default"}},
        {"headers": {"X-A": "1\n"}},
        {"headers": {"X-A": "\x00"}},
        {"headers": {"X-A": "\t"}},
        {"headers": {"X-A": "ü"}},
        {"headers": {"X-A": 5}},
        {"headers": {"X-A": b"1"}},
        {"headers": {"X-A": None}},
    ],
    ids=repr,
)
def test_arguments_out_of_range_are_refused(task_queues, arguments):
    [name] = arguments
    assert name.split("_", maxsplit=1)[0].rstrip("s") in refused(ValueError, **arguments)
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    "header",
    [
        "Host",
        "cookie",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "Content-Type",
        "Content-Length",
        "Content-Encoding",
        "Transfer-Encoding",
        "Connection",
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "X-AppEngine-QueueName",
        "X-Appengine-Cron",
        "X-CloudTasks-TaskName",
        "X-SocTasks-Meta",
        "x-soctasks-outcome",
    ],
)
def test_reserved_headers_are_refused(task_queues, header):
    assert "reserved" in refused(ValueError, headers={header: "x"})
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": -2},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"max_attempts": "3"},
        {"max_retry_duration": -1},
        {"min_backoff": float("nan")},
        {"max_backoff": float("inf")},
        {"max_doublings": -1},
        {"min_backoff": 2, "max_backoff": 1},
    ],
    ids=repr,
)
def test_bad_retry_options_cannot_be_made(options):
    with pytest.raises(ValueError, match="RetryOptions"):
        RetryOptions(**options)


def test_retry_options_always_join_with_those_of_a_queue(task_queues, settings, site_calls):
    slow, quick = RetryOptions(min_backoff=7200), RetryOptions(max_backoff=0.01)
    base = RetryOptions(min_backoff=1, max_backoff=10, max_attempts=2)
    assert slow.over(base) == RetryOptions(min_backoff=7200, max_backoff=7200, max_attempts=2)
    assert quick.over(base) == RetryOptions(min_backoff=0.01, max_backoff=0.01, max_attempts=2)
    startTask("behave", retry_options=slow)
    startTask("behave", retry_options=quick)
    task_queues.process_task_queues()
    assert len(site_calls) == 2


def test_the_handle_tells_what_was_queued(task_queues):
    before = datetime.now(UTC)
    handle = startTask("/tasks/behave/?a=1", {"b": "c"}, name="once", countdown=60)
    assert (handle.name, handle.queue, handle.url, handle.iteration) == ("once", "default", "/tasks/behave/?a=1", None)
    assert timedelta(seconds=60) <= handle.eta - before < timedelta(seconds=70)
    assert isinstance(handle, TaskHandle)
    unnamed, another = startTask("behave"), startTask("behave")
    assert unnamed.eta is None
    assert len({unnamed.name, another.name}) == 2
    starts = startTask("iterate"), startTask("iterate", name="nightly")
    assert all(len(handle.iteration) == 32 for handle in starts)
    assert starts[1].name == "nightly"


@pytest.mark.parametrize("hours", [-1000, 1, 719])
def test_eta_may_be_of_any_time_zone_and_in_the_past(task_queues, site_calls, hours):
    eta = datetime.now(timezone(timedelta(hours=5))) + timedelta(hours=hours)
    assert startTask("behave", eta=eta).eta == eta
    assert startTask("behave", eta=eta, countdown=0).eta is None
    task_queues.process_task_queues()
    assert site_calls[0][1].task.eta == eta


def test_headers_deadline_and_retry_options_go_with_the_task(task_queues, memory_backend, site_calls):
    retry = RetryOptions(max_attempts=5)
    startTask("behave", headers={"X-Trace": "a b", "traceparent": "00-1"}, dispatch_deadline=20, retry_options=retry)
    [task] = memory_backend.tasks_now()
    assert (task.dispatch_deadline, task.retry) == (20, retry)
    task_queues.process_task_queues()
    [(_, request, _)] = site_calls
    assert (request.headers["X-Trace"], request.headers["traceparent"]) == ("a b", "00-1")


def test_a_name_that_is_taken_or_was_used_is_refused(task_queues, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "other"}]
    startTask("behave", name="once")
    startTask("behave", name="once", queue="other")
    startTask("behave", name="ONCE")
    refused(TaskAlreadyExistsError, name="once")
    task_queues.process_task_queues()
    refused(TaskAlreadyExistsError, name="once")
    task_queues.assertNumTasksEquals(0)
    task_queues.flush_task_queues()
    startTask("behave", name="once")


def test_bulk_keeps_the_order_and_takes_dicts_and_requests(task_queues, site_calls):
    handles = startTasks(
        [{"url": "behave_slug", "url_kwargs": {"slug": f"s{i}"}, "context": {"n": i}} for i in range(3)]
        + [TaskRequest(url="behave", name="last", queue="default")]
    )
    assert [handle.url for handle in handles] == [*(f"/tasks/behave/s{i}/" for i in range(3)), "/tasks/behave/"]
    task_queues.process_task_queues()
    assert [kwargs["slug"] for _, _, kwargs in site_calls] == ["s0", "s1", "s2", "none"]
    assert startTasks([]) == []
    assert startTasks(iter([{"url": "behave"}]))[0].queue == "default"


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"url": "//h"}, ValueError),
        ({"url": "behave", "context": {"x": object()}}, TypeError),
        ({"url": "behave", "name": "first"}, TaskAlreadyExistsError),
        ({"url": "behave", "name": "used"}, TaskAlreadyExistsError),
        ({"url": "behave", "queue": "unknown"}, QueueNotFoundError),
        ({"url": "behave", "context": {"x": "x" * MAX_TASK_BYTES}}, TaskTooLargeError),
        ({"url": "behave", "colour": "red"}, TypeError),
        ({}, TypeError),
        ("behave", TypeError),
        (None, TypeError),
    ],
    ids=["url", "context", "twice", "used", "queue", "size", "unknown", "empty", "text", "none"],
)
def test_bulk_is_all_or_none(task_queues, bad, error):
    startTask("behave", name="used")
    with pytest.raises(error):
        startTasks([{"url": "behave", "name": "first"}, bad, {"url": "behave"}])
    task_queues.assertNumTasksEquals(1)
    startTask("behave", name="first")


def test_an_unknown_alias_is_refused(task_queues):
    assert "nowhere" in refused(ConfigurationError, using="nowhere")
    task_queues.assertNumTasksEquals(0)


def test_on_an_event_loop_the_error_says_how_to_call(task_queues):
    async def call(start, arguments):
        start(*arguments)

    for start, arguments in ((startTask, ["behave"]), (startTasks, [[{"url": "behave"}]])):
        with pytest.raises(RuntimeError, match=f"await asgiref.sync.sync_to_async\\({start.__name__}\\)"):
            asyncio.run(call(start, arguments))
    task_queues.assertNumTasksEquals(0)


def test_a_posted_form_travels_with_all_its_values(task_queues, site_calls):
    startTask("behave", QueryDict("a=1&a=2&b=3"))
    task_queues.process_task_queues()
    [(_, request, _)] = site_calls
    assert request.task.context == {"a": ["1", "2"], "b": "3"}
    assert request.POST.getlist("a") == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        ({"x": "x" * 100}, {"DATA_UPLOAD_MAX_MEMORY_SIZE": 101}),
        ({"x": "ü" * 20}, {"DATA_UPLOAD_MAX_MEMORY_SIZE": 100}),
        ({f"k{i}": "" for i in range(11)}, {"DATA_UPLOAD_MAX_NUMBER_FIELDS": 10}),
        ({"x": ["y"] * 11}, {"DATA_UPLOAD_MAX_NUMBER_FIELDS": 10}),
        ({"x": "x" * MAX_TASK_BYTES}, {}),
        ({f"key{i:04}": i for i in range(900)}, {}),
    ],
    ids=["bytes", "encoded", "fields", "list", "task", "typed keys"],
)
def test_what_would_not_fit_is_refused(task_queues, settings, arguments, limits):
    for name, value in limits.items():
        setattr(settings, name, value)
    refused(TaskTooLargeError, arguments)
    task_queues.assertNumTasksEquals(0)


def test_what_just_fits_is_taken_and_can_be_read(task_queues, settings, site_calls, memory_backend):
    startTask("behave", {"x": "y"})
    [task] = memory_backend.tasks_now()
    overhead = len(task.path) + len("x=") + sum(len(k) + len(v) for k, v in task.headers.items())
    startTask("behave", {"x": "x" * (MAX_TASK_BYTES - overhead)})
    refused(TaskTooLargeError, {"x": "x" * (MAX_TASK_BYTES - overhead + 1)})
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 10
    startTask("behave", {"x": ["y"] * 10})
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = None
    startTask("behave", {"x": ["y"] * 2000})
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_TASK_BYTES
    task_queues.process_task_queues()
    assert len(site_calls) == 4
