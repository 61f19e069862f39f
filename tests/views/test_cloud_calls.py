"""Calls of Cloud Tasks: who may say so on App Engine, what the headers tell, and how a task comes to its end."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client, RequestFactory

from soc_tasks import BackendUnavailableError, RetryOptions, TaskAlreadyExistsError, repeatTask, task
from soc_tasks.backends import get_backend
from soc_tasks.backends.cloud_tasks.wire import find_audience
from soc_tasks.conf import get_settings
from soc_tasks.engine.clock import SECOND, FakeClock
from soc_tasks.logic.iterations import Iteration
from soc_tasks.logic.letters import retry_letter
from soc_tasks.meta import Inherited, Meta, SliceMessage, read_meta
from soc_tasks.state import get_state
from soc_tasks.values import Delivery
from soc_tasks.views import cloud
from tests import site
from tests.views.calls import META, refused, route
from tests.views.tokens import HTTP, URL, Issuer, bearer, trust

APP_ENGINE = {"BACKEND": "cloud_tasks"}
FORM = "application/x-www-form-urlencoded"
PATHS = ["/tasks/behave/", "/tasks/superusers/", "/tasks/cron/", "/tasks/iterate/", "/guarded/"]
CLOCK = FakeClock()
NOW = CLOCK.now() / SECOND


@pytest.fixture(params=["app_engine", "http"])
def send(request, settings, monkeypatch):
    """Make a call as Cloud Tasks makes it, to either target, with the headers that belong to it."""
    issuer = Issuer(FakeClock())
    trust(monkeypatch, issuer)
    if request.param == "app_engine":
        settings.SOC_TASKS = APP_ENGINE
        monkeypatch.setenv("GAE_ENV", "standard")
    else:
        settings.SOC_TASKS = HTTP

    def send(told=None, meta=META, url="/tasks/behave/", body=b"a=b", token=None):
        prefix = "X-AppEngine-" if request.param == "app_engine" else "X-CloudTasks-"
        told = {"QueueName": "default", "TaskName": "made", **(told or {})}
        headers = {f"{prefix}{name}": str(value) for name, value in told.items()}
        if request.param == "http":
            headers = bearer(issuer.token(), headers)
        return Client().generic("POST", url, body, FORM, headers={"X-SocTasks-Meta": meta, **headers})

    send.target = request.param
    send.clock = issuer.clock
    return send


@pytest.fixture
def on_app_engine(settings, monkeypatch):
    settings.SOC_TASKS = APP_ENGINE
    monkeypatch.setenv("GAE_ENV", "standard")


def make_meta(began=NOW, **more):
    return Meta(start_id=f"{int(began * 1000):012x}" + "ab" * 10, **more)


# App Engine


@pytest.mark.parametrize(
    ("given", "gae"),
    [
        (APP_ENGINE, None),
        (APP_ENGINE, ""),
        (APP_ENGINE, "flex"),
        (APP_ENGINE, "Standard"),
        (HTTP, "standard"),
        ({**APP_ENGINE, "URL": URL, "TARGET": "http"}, "standard"),
        ({"BACKEND": "embedded"}, "standard"),
        ({"BACKEND": "memory"}, "standard"),
        ({}, "standard"),
    ],
)
@pytest.mark.parametrize("url", PATHS)
def test_headers_are_believed_on_app_engine_only(settings, monkeypatch, site_calls, given, gae, url):
    settings.SOC_TASKS = given
    monkeypatch.delenv("GAE_ENV", raising=False)
    if gae is not None:
        monkeypatch.setenv("GAE_ENV", gae)
    for name in ("X-AppEngine-QueueName", "X-CloudTasks-QueueName"):
        told = {name: "default", "X-AppEngine-TaskName": "made", "X-SocTasks-Meta": META}
        assert refused(Client().post(url, {"a": "b"}, headers=told))
        assert refused(Client().post(url, {"a": "b"}, headers={**told, "X-Appengine-Cron": "true"}))
    assert site_calls == []


@pytest.mark.parametrize("queue", ["", "other", "default,default", "a\xe9", "DEFAULT", "__cron", "../default", " "])
def test_a_queue_on_app_engine_is_one_that_is_configured(on_app_engine, site_calls, queue):
    for url in PATHS:
        assert refused(Client().post(url, headers={"X-AppEngine-QueueName": queue, "X-SocTasks-Meta": META}))
    assert site_calls == []


def test_http_headers_prove_nothing_on_app_engine(on_app_engine, site_calls):
    for url in PATHS:
        assert refused(Client().post(url, headers={"X-CloudTasks-QueueName": "default", "X-SocTasks-Meta": META}))
    assert site_calls == []


def test_app_engines_cron_is_no_queue(on_app_engine, task_queues, site_calls):
    # It names a queue of its own.
    told = {"X-Appengine-Cron": "true", "X-AppEngine-QueueName": "__cron", "X-AppEngine-TaskName": "abc"}
    assert Client().get("/tasks/cron/", headers=told).status_code == 202
    assert refused(Client().post("/tasks/behave/", headers={**told, "X-SocTasks-Meta": META}))
    task_queues.assertNumTasksEquals(1)
    assert site_calls == []


def test_a_queue_is_no_cron(on_app_engine, task_queues, site_calls):
    told = {"X-Appengine-Cron": "true", "X-AppEngine-QueueName": "default", "X-SocTasks-Meta": META}
    assert refused(Client().post("/tasks/cron/", headers=told))
    assert site_calls == []


def test_app_engine_tells_zero_after_a_timeout(on_app_engine, site_calls):
    told = {"X-AppEngine-QueueName": "default", "X-AppEngine-TaskPreviousResponse": "0", "X-SocTasks-Meta": META}
    assert Client().post("/tasks/behave/", "a=b", FORM, headers=told).status_code == 200
    assert site_calls[0][1].task.previous_status == 504


# What the headers tell


def test_the_headers_tell_of_the_call(send, site_calls, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}]
    told = {"QueueName": "mail", "TaskRetryCount": 4, "TaskExecutionCount": 2, "TaskPreviousResponse": 503}
    assert send({**told, "TaskETA": "1767323045.000006"}).status_code == 200
    [(_, request, _)] = site_calls
    info = request.task
    assert (info.queue, info.name, info.retry_count, info.execution_count) == ("mail", "made", 4, 2)
    assert info.eta == datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert (info.previous_status, info.start_id) == (503, "0" * 32)
    assert info.context == {"a": "b"}


@pytest.mark.parametrize("junk", ["x", "", "-1", "1e3", "9" * 5000, "\xb2", "1.5.5", "nan", "inf", " "])
def test_junk_is_unknown(send, site_calls, junk):
    names = ("TaskRetryCount", "TaskExecutionCount", "TaskETA", "TaskPreviousResponse")
    assert send({**dict.fromkeys(names, junk), "TaskName": f"../{junk}"}).status_code == 200
    info = site_calls[0][1].task
    assert (info.name, info.retry_count, info.execution_count) == ("", 0, 0)
    assert (info.eta, info.previous_status) == (None, None)


def test_names_are_those_that_the_code_knows(send, site_calls):
    """The backend turns names round that nobody chose."""
    meta = make_meta()
    iteration = "12" * 16
    message = SliceMessage(iteration=iteration, shard=0, step=3, epoch=0)
    for given, header, name in [
        ("nightly", meta, "nightly"),
        (meta.start_id[::-1], meta, meta.start_id),
        (f"{meta.start_id}-2"[::-1], meta, f"{meta.start_id}-2"),
        (f"{iteration}-0-0-3"[::-1], make_meta(slice=message), f"{iteration}-0-0-3"),
    ]:
        request = RequestFactory().post("/", headers={"X-SocTasks-Meta": header.to_header()})
        delivery = cloud._read_delivery(request, "X-", "default")
        assert delivery.name == ""
        request = RequestFactory().post(
            "/", headers={"X-SocTasks-Meta": header.to_header(), "X-CloudTasks-TaskName": given}
        )
        assert cloud._read_delivery(request, "X-CloudTasks-", "default").name == name


@pytest.mark.parametrize(
    ("asked", "app_engine", "http"), [(None, 600, 600), (20, 20, 20), (3600, 3600, 1800), (86_400, 86_400, 1800)]
)
def test_the_deadline_is_the_tasks_own(send, site_calls, asked, app_engine, http):
    left = []
    site.behaviours["behave"] = lambda request, **_: left.append(request.task.time_left())
    meta = make_meta(inherited=Inherited(dispatch_deadline=asked) if asked else None)
    assert send(meta=meta.to_header()).status_code == 200
    seconds = app_engine if send.target == "app_engine" else http
    assert timedelta(seconds=seconds - 5) < left[0] <= timedelta(seconds=seconds)


# Attempts


@pytest.mark.parametrize(
    ("queue", "own", "retries", "last"),
    [
        ({}, None, 98, False),
        ({}, None, 99, True),
        ({"retry_max_attempts": 3}, None, 1, False),
        ({"retry_max_attempts": 3}, None, 2, True),
        ({"retry_max_attempts": -1}, None, 10_000, False),
        ({"retry_max_attempts": 3}, RetryOptions(max_attempts=5), 3, False),
        ({"retry_max_attempts": 3}, RetryOptions(max_attempts=5), 4, True),
        ({"retry_max_attempts": 3}, RetryOptions(max_attempts=-1), 99, False),
        ({"retry_max_attempts": 3}, RetryOptions(min_backoff=5), 2, True),
        ({"retry_max_attempts": 3}, RetryOptions(max_attempts=1), 0, True),
        # 3,000 s have gone by since it was made.
        ({"retry_max_attempts": -1, "retry_max_retry_duration": 3000}, None, 1, True),
        ({"retry_max_attempts": -1, "retry_max_retry_duration": 3001}, None, 1, False),
        ({"retry_max_attempts": -1, "retry_max_retry_duration": 1}, None, 0, False),
        # Both limits must be passed.
        ({"retry_max_attempts": 3, "retry_max_retry_duration": 3001}, None, 7, False),
        ({"retry_max_attempts": 3, "retry_max_retry_duration": 3000}, None, 1, False),
        ({"retry_max_attempts": 3, "retry_max_retry_duration": 3000}, None, 7, True),
    ],
)
def test_which_attempt_is_the_last(send, settings, site_calls, queue, own, retries, last):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", **queue}]
    meta = make_meta(NOW - 3000, inherited=None if own is None else Inherited(retry=own)).to_header()
    assert send({"TaskRetryCount": retries, "TaskETA": NOW}, meta).status_code == 200
    assert site_calls[0][1].task.is_last_attempt is last


def test_the_time_of_a_delayed_task_counts_from_when_it_was_due(send, settings, site_calls):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": -1, "retry_max_retry_duration": 100}]
    for since, last in ((NOW - 99, False), (NOW - 100, True)):
        meta = make_meta(NOW - 86_400, since=since).to_header()
        assert send({"TaskRetryCount": 1}, meta).status_code == 200
        assert site_calls.pop()[1].task.is_last_attempt is last


def test_a_failing_last_attempt_is_a_dead_letter(send, settings, db, site_calls):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 2}]
    site.behaviours["behave"] = lambda request, **_: 1 / 0
    assert send({"TaskRetryCount": 0}).status_code == 500
    answer = send({"TaskRetryCount": 1})
    assert (answer.status_code, answer["X-SocTasks-Outcome"], answer.content) == (200, "dead", b"")
    [letter] = get_state().list_dead_letters()
    assert (letter.attempts, letter.error_type) == (2, "ZeroDivisionError")


@pytest.mark.parametrize(
    ("previous", "error_type", "words"),
    [
        (None, "DeadlineExceeded", "gave no answer"),
        (504, "DeadlineExceeded", "gave no answer"),
        (500, "Exhausted", "500"),
        (502, "Exhausted", "502"),
    ],
)
def test_an_attempt_beyond_the_last_never_runs(send, settings, db, site_calls, caplog, previous, error_type, words):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 3}]
    told = {"TaskRetryCount": 3} if previous is None else {"TaskRetryCount": 3, "TaskPreviousResponse": previous}
    meta = make_meta(inherited=Inherited(headers={"X-Trace": "1"}))
    answer = send(told, meta.to_header())
    assert (answer.status_code, answer["X-SocTasks-Outcome"], answer.content) == (200, "dead", b"")
    assert site_calls == []
    [letter] = get_state().list_dead_letters()
    assert (letter.attempts, letter.error_type) == (3, error_type)
    assert words in letter.error
    assert (letter.task.path, letter.task.body, letter.task.start_id) == ("/tasks/behave/", b"a=b", meta.start_id)
    assert letter.task.headers["X-Trace"] == "1"
    assert "dead" in caplog.text


def test_an_attempt_beyond_the_last_comes_again_if_no_letter_can_be_kept(send, settings, site_calls, monkeypatch):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 3}]

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(type(get_state()), "task_exhausted", fail)
    answer = send({"TaskRetryCount": 3})
    assert (answer.status_code, answer.has_header("X-SocTasks-Outcome")) == (500, False)
    assert site_calls == []


@pytest.mark.parametrize(
    "queue", [{"retry_max_attempts": -1}, {"retry_max_attempts": 3, "retry_max_retry_duration": 5000}]
)
def test_more_attempts_run_where_they_are_in_order(send, settings, site_calls, queue):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", **queue}]
    assert send({"TaskRetryCount": 50}, make_meta().to_header()).status_code == 200
    assert len(site_calls) == 1


def test_a_letter_that_is_retried_has_all_its_attempts_again(send, settings, db, task_queues, site_calls):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 3}]
    assert send({"TaskRetryCount": 1}, make_meta(NOW - 86_400, tried=2).to_header())["X-SocTasks-Outcome"] == "dead"
    [letter] = get_state().list_dead_letters()
    retry_letter(letter.id)
    [again] = pending()
    meta = read_meta(again)
    assert (meta.tried, meta.start_id) == (0, letter.task.start_id)
    assert abs(meta.since - time.time()) < 60


def pending():
    get_backend().collect()
    return get_backend().tasks


def test_a_slice_beyond_its_last_attempt_fails_its_shard(send, settings, db, task_queues, site_calls):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 3}]
    assert send(url="/tasks/iterate/", meta=make_meta().to_header(), body=b"").status_code == 200
    [first] = pending()
    header = first.headers["X-SocTasks-Meta"]
    answer = send({"TaskRetryCount": 3}, header, "/tasks/iterate/", b"")
    assert (answer.status_code, answer["X-SocTasks-Outcome"]) == (200, "dead")
    assert site_calls == []
    assert Iteration.get(read_meta(first).slice.iteration).status == "failed"


def test_slices_tell_of_what_they_inherit(send, settings, db, task_queues):
    inherited = Inherited(queue="default", retry=RetryOptions(max_attempts=2), dispatch_deadline=30)
    assert send(url="/tasks/iterate/", meta=make_meta(inherited=inherited).to_header(), body=b"").status_code == 200
    assert [read_meta(each).inherited for each in pending()] == [inherited]
    pending().clear()
    assert send(url="/tasks/iterate/", meta=make_meta(NOW + 1).to_header(), body=b"").status_code == 200
    assert [read_meta(each).inherited for each in pending()] == [None]


# repeatTask(countdown)


def test_repeat_with_a_countdown_is_a_copy(send, task_queues, site_calls):
    site.behaviours["behave"] = lambda request, **_: repeatTask(countdown=90)
    meta = make_meta(inherited=Inherited(headers={"X-Trace": "1"}, retry=RetryOptions(max_attempts=9)))
    answer = send({"TaskRetryCount": 2}, meta.to_header())
    assert (answer.status_code, answer.content) == (200, b"")
    assert not answer.has_header("X-SocTasks-Countdown")
    [copy] = pending()
    assert (copy.path, copy.body, copy.start_id, copy.queue) == ("/tasks/behave/", b"a=b", meta.start_id, "default")
    assert (copy.name, copy.named, copy.retry) == (f"{meta.start_id}-3", False, RetryOptions(max_attempts=9))
    assert copy.headers["X-Trace"] == "1"
    assert abs((copy.eta - datetime.now(UTC)).total_seconds() - 90) < 30
    assert read_meta(copy).tried == 3
    assert read_meta(copy).began == pytest.approx(meta.began, abs=0.01)
    # The copy goes on counting.
    site.behaviours["behave"] = lambda request, **_: None
    assert send({"TaskName": copy.name[::-1], "TaskRetryCount": 1}, copy.headers["X-SocTasks-Meta"]).status_code == 200
    info = site_calls[-1][1].task
    assert (info.name, info.retry_count, info.is_last_attempt) == (copy.name, 4, False)


def test_copies_have_no_more_attempts_than_the_task(send, settings, db, task_queues, site_calls):
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 3}]
    site.behaviours["behave"] = lambda request, **_: repeatTask(countdown=1)
    header = make_meta().to_header()
    for _ in range(2):
        assert send({}, header).status_code == 200
        header = pending().pop().headers["X-SocTasks-Meta"]
    assert send({}, header)["X-SocTasks-Outcome"] == "dead"
    assert pending() == []
    assert len(site_calls) == 3
    assert get_state().list_dead_letters()[0].attempts == 3


@pytest.mark.parametrize(("error", "status"), [(TaskAlreadyExistsError("x"), 200), (BackendUnavailableError("x"), 500)])
def test_a_copy_that_is_there_is_the_copy_and_one_that_cannot_be_is_a_retry(
    send, task_queues, monkeypatch, error, status
):
    def fail(tasks, using=None):
        raise error

    site.behaviours["behave"] = lambda request, **_: repeatTask(countdown=90)
    monkeypatch.setattr(get_backend(), "submit", fail)
    assert send(meta=make_meta().to_header()).status_code == status


@pytest.mark.parametrize("countdown", ["x", "nan", "-1", "inf", "1e99"])
def test_a_countdown_that_is_none_is_a_plain_retry(send, task_queues, site_calls, countdown):
    def answer(request, **_):
        response = repeatTask()
        response["X-SocTasks-Countdown"] = countdown
        return response

    site.behaviours["behave"] = answer
    assert send(meta=make_meta().to_header()).status_code == 500
    assert pending() == []


def test_repeat_without_a_countdown_is_left_to_the_service(send, task_queues):
    site.behaviours["behave"] = lambda request, **_: repeatTask()
    assert send().status_code == 500
    assert pending() == []


def test_a_queue_that_goes_by_countdowns_gets_them():
    with route(task(lambda request: repeatTask(countdown=90))):
        call = {"soc_tasks.delivery": Delivery(queue="default", name="made")}
        answer = Client().generic("POST", "/view/", headers={"X-SocTasks-Meta": META}, **call)
    assert (answer.status_code, answer["X-SocTasks-Countdown"]) == (500, "90.0")


def test_what_is_sent_is_what_is_demanded(settings):
    """The audience that the backend has tokens made for is the one that access looks for."""
    for given in ({}, {"URL": f"{URL}/"}, {"AUDIENCE": "x"}, {"AUDIENCE": ""}):
        settings.SOC_TASKS = {**HTTP, **given}
        assert get_settings().effective_audience == find_audience(get_settings())
