"""What the API refuses, by the service's own codes and words, recorded from it; what is ours stands below."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2
from google.rpc import error_details_pb2

from tests.engine.server.conftest import PARENT

QUEUE = f"{PARENT}/queues/quick"
URL = {"url": "http://127.0.0.1:9/"}
NO_QUEUE = "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."
NOT_FOUND = "Requested entity was not found."
ENDED = (
    "The task no longer exists, though a task with this name existed recently. "
    "The task either successfully completed or was deleted."
)
REFERENCE = "https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues"


def make_queue(**configuration):
    return lambda client: client.create_queue(parent=PARENT, queue={"name": f"{PARENT}/queues/new", **configuration})


def make_task(name="", parent=QUEUE, **task):
    if not task.keys() & {"http_request", "app_engine_http_request", "bare"}:
        task["http_request"] = URL
    task.pop("bare", None)
    return lambda client: client.create_task(parent=parent, task={"name": name, **task})


def by_name(method, name):
    return lambda client: getattr(client, method)(name=name)


def retry(**options):
    return make_queue(retry_config=options)


def rates(**options):
    return make_queue(rate_limits=options)


GOLDEN = {
    "queue exists": (
        lambda client: client.create_queue(parent=PARENT, queue={"name": QUEUE}),
        "ALREADY_EXISTS",
        "Queue already exists",
    ),
    "queue name": (
        lambda client: client.create_queue(parent=PARENT, queue={"name": f"{PARENT}/queues/a_b"}),
        "INVALID_ARGUMENT",
        'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>".',
    ),
    "queue elsewhere": (
        lambda client: client.create_queue(parent="projects/demo/locations/there", queue={"name": QUEUE}),
        "INVALID_ARGUMENT",
        f"{QUEUE} must begin with projects/demo/locations/there.",
    ),
    "rate below 0": (
        rates(max_dispatches_per_second=-1),
        "INVALID_ARGUMENT",
        "RateLimits.maxDispatchesPerSecond cannot be negative.",
    ),
    "rate above 500": (
        rates(max_dispatches_per_second=501),
        "INVALID_ARGUMENT",
        "RateLimits.maxDispatchesPerSecond must be less than or equal to 500.",
    ),
    "concurrency below 0": (
        rates(max_concurrent_dispatches=-1),
        "INVALID_ARGUMENT",
        "RateLimits.maxConcurrentDispatches cannot be negative.",
    ),
    "concurrency above 5000": (
        rates(max_concurrent_dispatches=5001),
        "INVALID_ARGUMENT",
        "RateLimits.maxConcurrentDispatches must be less than or equal to 5000.",
    ),
    "attempts": (
        retry(max_attempts=-2),
        "INVALID_ARGUMENT",
        "RetryConfig.maxAttempts must be greater or equal to -1.",
    ),
    "doublings": (retry(max_doublings=-1), "INVALID_ARGUMENT", "RetryConfig.maxDoublings cannot be negative."),
    "backoff below 0": (retry(min_backoff="-1s"), "INVALID_ARGUMENT", "RetryConfig.minBackoff cannot be negative."),
    "backoffs crossed": (
        retry(min_backoff="2s", max_backoff="1s"),
        "INVALID_ARGUMENT",
        "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.",
    ),
    "get no queue": (by_name("get_queue", f"{PARENT}/queues/none"), "NOT_FOUND", NO_QUEUE),
    "pause no queue": (by_name("pause_queue", f"{PARENT}/queues/none"), "NOT_FOUND", NO_QUEUE),
    "resume no queue": (by_name("resume_queue", f"{PARENT}/queues/none"), "NOT_FOUND", NO_QUEUE),
    "purge no queue": (by_name("purge_queue", f"{PARENT}/queues/none"), "NOT_FOUND", NO_QUEUE),
    "delete no queue": (by_name("delete_queue", f"{PARENT}/queues/none"), "NOT_FOUND", NOT_FOUND),
    "task in no queue": (make_task(parent=f"{PARENT}/queues/none"), "NOT_FOUND", NO_QUEUE),
    "get no task": (by_name("get_task", f"{QUEUE}/tasks/none"), "NOT_FOUND", NOT_FOUND),
    "delete no task": (by_name("delete_task", f"{QUEUE}/tasks/none"), "NOT_FOUND", NOT_FOUND),
    "run no task": (by_name("run_task", f"{QUEUE}/tasks/none"), "NOT_FOUND", NOT_FOUND),
    "get ended task": (by_name("get_task", f"{QUEUE}/tasks/ended"), "NOT_FOUND", ENDED),
    "task exists": (make_task(f"{QUEUE}/tasks/there"), "ALREADY_EXISTS", "Requested entity already exists"),
    "task existed": (
        make_task(f"{QUEUE}/tasks/ended"),
        "ALREADY_EXISTS",
        "The task cannot be created because a task with this name existed too recently. For more information about "
        "task de-duplication see https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues.tasks/create"
        "#body.request_body.FIELDS.task.",
    ),
    "task id": (
        make_task(f"{QUEUE}/tasks/not a valid id"),
        "INVALID_ARGUMENT",
        'Task ID "not a valid id" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or underscores '
        "(_). Task ID must between 1 and 500 characters.",
    ),
    "task elsewhere": (
        make_task(f"{QUEUE}-other/tasks/a"),
        "INVALID_ARGUMENT",
        f"The queue name from request ('{QUEUE}') must be the same as the queue name in the named task "
        f"('{QUEUE}-other').",
    ),
    "no target": (make_task(bare=True), "INVALID_ARGUMENT", "Task.payload_type is not set."),
    "no url": (make_task(http_request={}), "INVALID_ARGUMENT", "HttpRequest.url is required."),
    "no scheme": (
        make_task(http_request={"url": "example.org/"}),
        "INVALID_ARGUMENT",
        "HttpTarget.url must start with 'http://' or 'https://'.",
    ),
    "other scheme": (
        make_task(http_request={"url": "ftp://example.org/"}),
        "INVALID_ARGUMENT",
        "HttpTarget.url must start with 'http://' or 'https://'.",
    ),
    "token in the clear": (
        make_task(http_request={"url": "http://example.org/", "oidc_token": {"service_account_email": "a@b.c"}}),
        "INVALID_ARGUMENT",
        "HttpRequest.url must start with 'https://' for request with HttpRequest.authorization_header",
    ),
    "deadline short": (
        make_task(dispatch_deadline="14s"),
        "INVALID_ARGUMENT",
        "Task.dispatchDeadline must be between [15s, 30m].",
    ),
    "deadline long": (
        make_task(dispatch_deadline="1800.001s"),
        "INVALID_ARGUMENT",
        "Task.dispatchDeadline must be between [15s, 30m].",
    ),
    "deadline on App Engine": (
        make_task(app_engine_http_request={}, dispatch_deadline="87301s"),
        "INVALID_ARGUMENT",
        "Task.dispatchDeadline must be between [15s, 24h15s].",
    ),
    "schedule": (
        make_task(schedule_time="2100-01-01T00:00:00Z"),
        "INVALID_ARGUMENT",
        "The Task.scheduleTime, 2099-12-31T16:00:00-08:00, is too far in the future. "
        "Schedule time must be no more than 720h in the future.",
    ),
    "size": (make_task(http_request={**URL, "body": b"x" * 1_048_569}), "INVALID_ARGUMENT", "Task size too large"),
}


@pytest.fixture
def filled(client, queue):
    """A queue with a task, and with the name of one that ended."""
    client.pause_queue(name=queue)
    for name in ("there", "ended"):
        client.create_task(parent=queue, task={"name": f"{queue}/tasks/{name}", "http_request": URL})
    client.delete_task(name=f"{queue}/tasks/ended")
    return client


@pytest.mark.parametrize(("call", "code", "message"), GOLDEN.values(), ids=GOLDEN)
def test_golden(filled, call, code, message):
    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        call(filled)
    assert (caught.value.grpc_status_code, caught.value.message) == (getattr(grpc.StatusCode, code), message)


@pytest.mark.parametrize(
    ("call", "description", "url"),
    [
        (GOLDEN["queue name"][0], "Definition of queue name", f"{REFERENCE}#Queue.FIELDS.name"),
        (GOLDEN["task id"][0], "Definition of task ID", f"{REFERENCE}.tasks#Task.FIELDS.name"),
    ],
)
def test_help(filled, call, description, url):
    with pytest.raises(exceptions.InvalidArgument) as caught:
        call(filled)
    [help] = caught.value.details
    assert isinstance(help, error_details_pb2.Help)
    assert [(link.description, link.url) for link in help.links] == [(description, url)]


def test_what_the_service_takes(client, queue):
    client.pause_queue(name=queue)
    # A burst size of the client's is passed over, bad escapes are found out when the task is due.
    made = make_queue(rate_limits={"max_burst_size": -1})(client)
    assert made.rate_limits.max_burst_size == 100
    assert make_task(http_request={"url": "http://h/%zz"})(client).http_request.url == "http://h/%zz"


@pytest.mark.parametrize("kind", ["http_request", "app_engine_http_request"])
def test_size_to_the_byte(filled, kind):
    """The stored form may have 1,048,569 bytes: name, times, defaults and headers count."""
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    target = {"url": "http://127.0.0.1:9/"} if kind == "http_request" else {}

    def make(size, name):
        task = {"name": f"{QUEUE}/tasks/{name}", "schedule_time": soon, kind: {**target, "body": b"x" * size}}
        return filled.create_task(request={"parent": QUEUE, "task": task, "response_view": "FULL"})

    stored = tasks_v2.Task.pb(make(1_000_000, "a"))
    stored.ClearField("view")
    # On App Engine the host is counted with its region: demo.xx.r.appspot.com.
    fits = 1_000_000 + 1_048_569 - stored.ByteSize() - (5 if kind == "app_engine_http_request" else 0)
    make(fits, "b")
    with pytest.raises(exceptions.InvalidArgument, match="Task size too large"):
        make(fits + 1, "c")


OURS = {
    "oauth": (
        make_task(http_request={"url": "https://a.googleapis.com/", "oauth_token": {"service_account_email": "a@b"}}),
        "UNIMPLEMENTED",
    ),
    "body with GET": (make_task(http_request={**URL, "http_method": "GET", "body": b"x"}), "INVALID_ARGUMENT"),
    "body with PATCH": (
        make_task(app_engine_http_request={"http_method": "PATCH", "body": b"x"}),
        "INVALID_ARGUMENT",
    ),
    "line break": (make_task(http_request={**URL, "headers": {"X-A": "b\r\nX-C: d"}}), "INVALID_ARGUMENT"),
    "header name": (make_task(http_request={**URL, "headers": {"X A": "b"}}), "INVALID_ARGUMENT"),
    "long url": (make_task(http_request={"url": "http://h/" + "a" * 2083}), "INVALID_ARGUMENT"),
    "relative uri": (make_task(app_engine_http_request={"relative_uri": "a"}), "INVALID_ARGUMENT"),
    "spaces": (make_task(app_engine_http_request={"relative_uri": "/a b"}), "INVALID_ARGUMENT"),
    "task name": (make_task("tasks/a"), "INVALID_ARGUMENT"),
    "retry of a task": (make_task(retry_config={"max_attempts": -2}), "INVALID_ARGUMENT"),
    "empty host": (make_queue(http_target={"uri_override": {"host": ""}}), "INVALID_ARGUMENT"),
    "ratio": (make_queue(stackdriver_logging_config={"sampling_ratio": 2}), "INVALID_ARGUMENT"),
    "long names": (
        lambda client: client.get_queue(name=f"projects/{'p' * 190}/locations/here/queues/quick"),
        "INVALID_ARGUMENT",
    ),
    "filter": (
        lambda client: client.list_queues(request={"parent": PARENT, "filter": "name: a"}),
        "UNIMPLEMENTED",
    ),
    "page token": (
        lambda client: client.list_queues(request={"parent": PARENT, "page_token": "x"}),
        "INVALID_ARGUMENT",
    ),
    "IAM": (lambda client: client.get_iam_policy(request={"resource": QUEUE}), "UNIMPLEMENTED"),
    "CMEK": (lambda client: client.get_cmek_config(name=f"{PARENT}/cmekConfig"), "UNIMPLEMENTED"),
}


@pytest.mark.parametrize(("call", "code"), OURS.values(), ids=OURS)
def test_what_else_is_refused(filled, call, code):
    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        call(filled)
    assert caught.value.grpc_status_code is getattr(grpc.StatusCode, code)
