"""Tasks as Google Cloud Tasks gets them, against a service that takes them by gRPC."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from django.db import transaction
from google.auth.exceptions import DefaultCredentialsError

from soc_tasks import startTask, startTasks
from soc_tasks.backends.base import MAX_TASK_BYTES
from soc_tasks.backends.cloud_tasks import service as service_module
from soc_tasks.backends.cloud_tasks.backend import CloudTasksBackend
from soc_tasks.errors import (
    BackendUnavailableError,
    ConfigurationError,
    EnqueueError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskTooLargeError,
)
from soc_tasks.models import DeadLetterRow, OutboxRow
from soc_tasks.values import RetryOptions
from tests.engine.tasks import make_task, rolled_back

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
CODE = grpc.StatusCode


def only(fake):
    (task,) = fake.tasks.values()
    return task


QUEUE = "projects/school/locations/europe-west1/queues/default"


# What is sent.


def test_an_app_engine_task(backend, fake):
    eta = datetime.now(UTC) + timedelta(minutes=5)
    handle = startTask(
        "/tasks/behave/?a=1",
        {"word": "ü"},
        name="chosen",
        eta=eta,
        headers={"X-Own": "1"},
        dispatch_deadline=90.5,
        retry_options=RetryOptions(
            max_attempts=3, min_backoff=0.5, max_backoff=10, max_doublings=2, max_retry_duration=60
        ),
        version="v2",
    )
    task, request = only(fake), fake.requests[0]
    assert request.parent == QUEUE
    assert fake.metadata[0]["x-goog-request-params"] == "parent=" + QUEUE.replace("/", "%2F")
    assert task.name == f"{QUEUE}/tasks/{handle.name}" == f"{QUEUE}/tasks/chosen"
    target = task.app_engine_http_request
    assert (target.http_method, target.relative_uri, target.body) == (1, "/tasks/behave/?a=1", b"word=%C3%BC")
    assert target.app_engine_routing.version == "v2"
    assert target.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    assert target.headers["X-Own"] == "1"
    assert task.schedule_time.ToDatetime(UTC) == eta
    assert task.dispatch_deadline.ToNanoseconds() == 90_500_000_000
    retry = task.retry_config
    # Three attempts more than asked for: by those an attempt without an end is seen, also where one of them has none.
    assert (retry.max_attempts, retry.max_doublings) == (6, 2)
    times = (retry.min_backoff, retry.max_backoff, retry.max_retry_duration)
    assert [time.ToNanoseconds() / 1e9 for time in times] == [0.5, 10, 60]


def test_what_is_not_set_is_not_sent(backend, fake):
    startTask("/tasks/behave/")
    task = only(fake)
    for name in ("schedule_time", "dispatch_deadline", "retry_config"):
        assert not task.HasField(name)
    assert not task.app_engine_http_request.HasField("app_engine_routing")


def test_attempts_without_limit_stay_without(backend, fake):
    startTask("/tasks/behave/", retry_options=RetryOptions(max_attempts=-1))
    assert only(fake).retry_config.max_attempts == -1


@pytest.mark.parametrize(("pinned", "sent"), [(True, "20261121t1"), (False, "")])
def test_a_pinned_version_is_the_running_one(backend, fake, settings, monkeypatch, pinned, sent):
    monkeypatch.setenv("GAE_VERSION", "20261121t1")
    settings.SOC_TASKS = {**settings.SOC_TASKS, "PIN_VERSION": pinned}
    startTask("/tasks/behave/")
    assert only(fake).app_engine_http_request.app_engine_routing.version == sent


def test_an_http_task_with_a_token(backend, fake, settings):
    settings.SOC_TASKS = {
        **settings.SOC_TASKS, "TARGET": "http", "URL": "https://school.example", "SERVICE_ACCOUNT": "tasks@x.example",
        "SERVICES": {"mail": "https://mail.example"},
    }  # fmt: skip
    startTask("/tasks/behave/")
    startTask("/send/", service="mail")
    own, mail = (task.http_request for task in fake.tasks.values())
    assert (own.url, own.http_method) == ("https://school.example/tasks/behave/", 1)
    assert (own.oidc_token.service_account_email, own.oidc_token.audience) == (
        "tasks@x.example", "https://school.example",
    )  # fmt: skip
    assert (mail.url, mail.oidc_token.audience) == ("https://mail.example/send/", "https://mail.example")


def test_names_that_nobody_chose_do_not_begin_alike(backend, fake):
    handles = startTasks([{"url": "/tasks/behave/"}] * 3)
    ids = [name.rpartition("/")[2] for name in fake.tasks]
    assert sorted(ids) == sorted(handle.name[::-1] for handle in handles)


def test_what_the_service_would_refuse_is_refused_before_anything_is_sent(backend, fake):
    fits = make_task("/tasks/behave/", body=b"x" * (MAX_TASK_BYTES - 600), headers={})
    backend.submit([fits])
    with pytest.raises(TaskTooLargeError, match="1,048,569"):
        backend.submit([make_task("/tasks/behave/"), make_task("/tasks/behave/", body=b"x" * MAX_TASK_BYTES)])
    assert len(fake.requests) == 1


def test_settings_that_are_missing_are_named(backend, fake, settings, monkeypatch):
    settings.CLOUD_TASKS_LOCATION = None
    startTask("/tasks/behave/")
    assert fake.requests[0].parent == "projects/school/locations/local/queues/default"
    monkeypatch.delenv("TASKS_EMULATOR_HOST")
    with pytest.raises(ConfigurationError, match="CLOUD_TASKS_LOCATION"):
        startTask("/tasks/behave/")


def test_without_credentials_it_says_where_they_come_from(settings, monkeypatch):
    def default(*args, **kwargs):
        raise DefaultCredentialsError("nowhere")

    settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
    monkeypatch.delenv("TASKS_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("google.auth.default", default)
    with pytest.raises(ConfigurationError, match=r"application-default login.*tasks sandbox"):
        service_module.open_channel()


# What the service answers.


def test_a_lost_reply_is_asked_for_again_and_no_second_task(backend, fake):
    fake.fault = lambda request: (CODE.UNAVAILABLE, True) if len(fake.requests) == 1 else None
    startTask("/tasks/behave/", name="once")
    assert len(fake.requests) == 2
    assert len(fake.tasks) == 1


def test_a_lost_request_is_made_again(backend, fake):
    fake.fault = lambda request: (CODE.DEADLINE_EXCEEDED, False) if len(fake.requests) < 3 else None
    startTask("/tasks/behave/")
    assert len(fake.requests) == 3
    assert len(fake.tasks) == 1


def test_a_name_that_is_taken_is_told_at_the_first_try(backend, fake):
    startTask("/tasks/behave/", name="taken")
    with pytest.raises(TaskAlreadyExistsError, match=r"taken.* for up to 24 hours after its task"):
        startTask("/tasks/behave/", name="taken")
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("code", "error", "match"),
    [
        (CODE.NOT_FOUND, QueueNotFoundError, "tasks queues --apply"),
        (CODE.PERMISSION_DENIED, ConfigurationError, r"roles/cloudtasks\.enqueuer"),
        (CODE.UNAUTHENTICATED, ConfigurationError, "CLOUD_TASKS_PROJECT_ID"),
        (CODE.INVALID_ARGUMENT, EnqueueError, "refuses"),
        (CODE.FAILED_PRECONDITION, EnqueueError, "takes no tasks"),
        (CODE.RESOURCE_EXHAUSTED, BackendUnavailableError, "safe to call again"),
        (CODE.INTERNAL, BackendUnavailableError, "safe to call again"),
    ],
)
def test_errors_are_told_with_what_to_do_and_not_tried_again(backend, fake, code, error, match):
    fake.fault = lambda request: (code, False)
    with pytest.raises(error, match=match):
        startTask("/tasks/behave/")
    assert len(fake.requests) == 1


def test_a_service_that_is_gone_is_given_up_in_the_end(backend, fake, monkeypatch):
    monkeypatch.setattr(service_module, "CALL_SECONDS", 0.5)
    fake.fault = lambda request: (CODE.UNAVAILABLE, False)
    with pytest.raises(BackendUnavailableError, match="safe to call again"):
        startTask("/tasks/behave/")
    assert len(fake.requests) > 1


# Many.


def test_many_tasks_keep_their_order(backend, fake):
    handles = startTasks([{"url": "/tasks/behave/", "name": f"t{number}"} for number in range(250)])
    assert [handle.name for handle in handles] == [f"t{number}" for number in range(250)]
    assert {name.rpartition("/")[2] for name in fake.tasks} == {f"t{number}" for number in range(250)}


def test_of_many_each_is_told_what_became_of_it(backend, fake):
    fake.fault = lambda request: (CODE.INVALID_ARGUMENT, False) if request.task.name.endswith("bad") else None
    with pytest.raises(EnqueueError, match="2 of 3 tasks were created, 1 were not") as raised:
        startTasks([{"url": "/tasks/behave/", "name": name} for name in ("a", "bad", "c")])
    assert [type(result) for result in raised.value.results] == [type(None), type(raised.value), type(None)]
    assert len(fake.tasks) == 2


# Transactions.


@pytest.mark.parametrize("alias", ["default", "other"])
def test_in_a_block_a_task_is_sent_when_that_commits(backend, fake, alias):
    with transaction.atomic(using=alias):
        startTask("/tasks/behave/", name="kept", using=alias)
        assert fake.requests == []
    assert [name.rpartition("/")[2] for name in fake.tasks] == ["kept"]
    with rolled_back(using=alias):
        startTask("/tasks/behave/", using=alias)
    assert backend.relay() == 0
    assert len(fake.requests) == 1
    assert OutboxRow.objects.using(alias).count() == 0


def test_what_could_not_be_sent_is_relayed_and_comes_once(backend, fake, monkeypatch):
    fake.fault = lambda request: (CODE.RESOURCE_EXHAUSTED, False)
    with transaction.atomic():
        startTask("/tasks/behave/", name="later")
    assert OutboxRow.objects.count() == 1
    OutboxRow.objects.update(leased_until=None)
    # It was created, and whoever did that died before the row was gone.
    fake.fault = lambda request: None
    backend.submit([make_task("/tasks/behave/", name="later")])
    assert backend.relay() == 1
    assert OutboxRow.objects.count() == 0
    assert len(fake.tasks) == 1


class AtOnce:
    """Runs in this thread: another one would leave its connection to a database in memory open."""

    def __init__(self, *, target, **_):
        self.start = target


@pytest.mark.parametrize("in_block", [False, True])
def test_later_enqueues_relay_what_the_dead_left(backend, fake, monkeypatch, in_block):
    fake.fault = lambda request: (CODE.RESOURCE_EXHAUSTED, False)
    with transaction.atomic():
        startTask("/tasks/behave/", name="left")
    OutboxRow.objects.update(leased_until=None)
    fake.fault = lambda request: None
    monkeypatch.setattr("soc_tasks.backends.cloud_tasks.backend.RELAY_EVERY", 0.0)
    monkeypatch.setattr("soc_tasks.backends.cloud_tasks.backend.threading.Thread", AtOnce)
    with transaction.atomic() if in_block else nullcontext():
        CloudTasksBackend().submit([make_task("/tasks/behave/", name="new")])
    assert sorted(name.rpartition("/")[2] for name in fake.tasks) == ["left", "new"]
    assert OutboxRow.objects.count() == 0


def test_what_is_refused_for_good_is_a_dead_letter_and_holds_nobody_up(backend, fake):
    fake.fault = lambda request: (CODE.INVALID_ARGUMENT, False) if request.task.name.endswith("bad") else None
    with transaction.atomic():
        startTasks([{"url": "/tasks/behave/", "name": name} for name in ("a", "bad", "c")])
    assert len(fake.tasks) == 2
    assert OutboxRow.objects.count() == 0
    letter = DeadLetterRow.objects.get()
    assert (letter.name, letter.error_type) == ("bad", "RefusedForGoodError")


def test_what_may_pass_is_a_dead_letter_after_a_day(backend, fake):
    fake.fault = lambda request: (CODE.NOT_FOUND, False)
    with transaction.atomic():
        startTask("/tasks/behave/", name="waits")
    assert OutboxRow.objects.count() == 1
    day = timedelta(days=1, seconds=1)
    OutboxRow.objects.update(leased_until=None, created=datetime.now(UTC) - day)
    assert backend.relay() == 0
    assert OutboxRow.objects.count() == 0
    assert DeadLetterRow.objects.get().error_type == "QueueNotFoundError"
