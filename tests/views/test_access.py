"""Who may call: the queue by its proof, people by their session and a CSRF token, cron on App Engine, nobody else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from django.contrib.auth.models import Permission, User
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.test import Client, RequestFactory

import soc_tasks
from soc_tasks import task
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.meta import Meta, SliceMessage
from soc_tasks.values import DELIVERY_KEY, Delivery, Task
from soc_tasks.views import cloud
from tests import site
from tests.views.calls import META, deliver, delivery, refused, route

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JWT = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2FjY291bnRzLmdvb2dsZS5jb20ifQ."
FORGED = [
    {"X-AppEngine-QueueName": "default"},
    {"X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": "x", "X-AppEngine-TaskRetryCount": "0"},
    {"X-Appengine-Cron": "true"},
    {"X-AppEngine-User-Is-Admin": "1"},
    {"X-AppEngine-Inbound-Appid": "x"},
    {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "x"},
    {"X-CloudTasks-TaskRetryCount": "x", "User-Agent": "Google-Cloud-Tasks"},
    {"Authorization": f"Bearer {JWT}"},
    {"Authorization": "Bearer "},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
    {"Proxy-Authorization": f"Bearer {JWT}"},
    {"X-SocTasks-Meta": META},
    {"X-SocTasks-Meta": Meta(start_id="0" * 32, admitted=True).to_header()},
    {"X-SocTasks-Signature": "v1=0"},
    {"X-SocTasks-Queue": "default", "X-SocTasks-Task": "x", "X-SocTasks-Attempt": "0"},
    {"soc_tasks.delivery": "x"},
    {"soc-tasks.delivery": "Delivery(queue='default', name='x')"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Host": "localhost"},
    {"Origin": "http://testserver", "Referer": "http://testserver/"},
]
TASK_PATHS = [
    "/tasks/behave/",
    "/tasks/superusers/",
    "/tasks/staff/",
    "/tasks/cron/",
    "/tasks/iterate/",
    "/tasks/iterate-slowly/",
    "/guarded/",
    "/guarded-or-superuser/",
]


@pytest.mark.parametrize("url", TASK_PATHS)
@pytest.mark.parametrize("headers", FORGED, ids=", ".join)
def test_forged_headers_are_refused(site_calls, url, headers, monkeypatch):
    monkeypatch.setenv("GAE_ENV", "standard")
    assert refused(Client().post(url, {"a": "b"}, headers=headers))
    assert site_calls == []


@pytest.mark.parametrize("proof", ["x", "True", b"x", True, 1, {"queue": "default"}, [], object(), Delivery, None])
@pytest.mark.parametrize("url", TASK_PATHS)
def test_only_the_object_itself_is_a_proof(site_calls, url, proof):
    assert refused(Client().post(url, **{DELIVERY_KEY: proof}))
    assert refused(Client().post(url, **{f"HTTP_{DELIVERY_KEY.upper()}": proof}))
    assert site_calls == []


def test_the_queue_is_let_in(site_calls):
    assert Client().post("/guarded/", **delivery()).content == b"hello"
    assert Client().post("/guarded-or-superuser/", **delivery()).content == b"hello"
    assert len(site_calls) == 2


@pytest.mark.parametrize("url", ["/tasks/staff/", "/tasks/cron/"])
def test_the_queue_is_refused_where_it_is_not_named(site_calls, url):
    assert refused(deliver(url))
    assert site_calls == []


@pytest.fixture
def browser(db):
    """A browser in which a user has logged in, and that Django asks for a CSRF token."""

    def log_in(**fields):
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create(username="u", **fields))
        client.cookies["csrftoken"] = token = get_token(RequestFactory().get("/"))
        return client, {"csrfmiddlewaretoken": token}

    return log_in


def test_a_session_without_a_csrf_token_starts_nothing(browser, task_queues, site_calls):
    client, token = browser(is_superuser=True)
    for form in ({}, {"a": "b"}, {"csrfmiddlewaretoken": "x" * 32}, {"csrfmiddlewaretoken": token, "a": "\x00"}):
        assert refused(client.post("/tasks/superusers/", form))
    assert refused(client.post("/tasks/superusers/", token, headers={"Origin": "http://evil.example"}))
    assert refused(client.post("/tasks/superusers/", token, secure=True))
    client.cookies.pop("csrftoken")
    assert refused(client.post("/tasks/superusers/", token))
    task_queues.assertNumTasksEquals(0)
    assert site_calls == []


def test_a_session_with_a_csrf_token_starts_a_task_that_runs_without_it(browser, task_queues, site_calls):
    client, token = browser(is_superuser=True)
    response = client.post("/tasks/superusers/?page=2", {**token, "a": "b", "many": ["1", "2"]})
    assert (response.status_code, response.content) == (202, b"")
    assert site_calls == []
    task_queues.process_task_queues()
    [(_, request, _)] = site_calls
    assert request.task.context == {"a": "b", "many": ["1", "2"]}
    assert "csrfmiddlewaretoken" not in request.POST
    assert request.GET["page"] == "2"
    assert request.user.is_anonymous
    header = client.post("/tasks/superusers/", headers={"X-CSRFToken": token["csrfmiddlewaretoken"]})
    assert header.status_code == 202
    assert client.get("/tasks/superusers/").status_code == 405


def test_a_task_of_people_alone_runs_when_one_of_them_has_started_it(browser, task_queues, site_calls):
    client, token = browser(is_staff=True, is_superuser=True)
    assert client.post("/tasks/staff/", token).status_code == 202
    task_queues.process_task_queues()
    assert len(site_calls) == 1


@pytest.mark.parametrize(
    ("fields", "permission", "let_in"),
    [
        ({}, None, set()),
        ({"is_staff": True}, None, set()),
        ({"is_superuser": True}, None, {"superusers"}),
        ({"is_staff": True, "is_superuser": True}, None, {"superusers", "staff"}),
        ({"is_staff": True}, "change_entry", {"staff"}),
        ({"is_staff": True}, "view_entry", set()),
        ({}, "change_entry", set()),
        ({"is_staff": True, "is_superuser": True, "is_active": False}, "change_entry", set()),
    ],
)
def test_what_people_may_start(browser, task_queues, fields, permission, let_in):
    client, token = browser(**fields)
    if permission:
        User.objects.get().user_permissions.add(Permission.objects.get(codename=permission))
    for name in ("behave", "superusers", "staff", "cron", "iterate"):
        response = client.post(f"/tasks/{name}/", token)
        assert response.status_code == (202 if name in let_in else 403)
        assert response.content == b""
    task_queues.assertNumTasksEquals(len(let_in))


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("a=%00", "application/x-www-form-urlencoded"),
        ("a=b&" * 1001, "application/x-www-form-urlencoded"),
        ("a=" + "x" * 1_100_000, "application/x-www-form-urlencoded"),
        ("a=b", "application/x-www-form-urlencoded; charset=utf-7"),
        ("x", "multipart/form-data"),
    ],
    ids=["NUL", "fields", "size", "charset", "no boundary"],
)
def test_a_form_that_cannot_travel_is_the_callers_mistake(browser, task_queues, body, content_type):
    client, token = browser(is_superuser=True)
    value = token["csrfmiddlewaretoken"]
    answers = [
        client.generic("POST", "/tasks/superusers/", body, content_type, HTTP_X_CSRFTOKEN=value),
        client.generic("POST", "/tasks/superusers/", f"csrfmiddlewaretoken={value}&{body}", content_type),
    ]
    # Where the token cannot be read with the form, it is not there.
    assert {response.status_code for response in answers} <= {400, 403}
    with route(task(access=lambda request: True)(lambda request: None)):
        answers.append(client.generic("POST", "/view/", body, content_type))
    assert answers[2].status_code == 400
    assert [response.content for response in answers] == [b""] * 3
    task_queues.assertNumTasksEquals(0)


def test_a_session_never_runs_a_slice(browser, task_queues, site_calls):
    client, token = browser(is_superuser=True)
    slices = Meta(start_id="0" * 32, slice=SliceMessage(iteration="0" * 32, shard=0, step=0, epoch=0))
    response = client.post("/tasks/iterate-slowly/", token, headers={"X-SocTasks-Meta": slices.to_header()})
    # What it asks for is a start like any other.
    assert response.status_code == 202
    assert site_calls == []
    assert refused(client.post("/tasks/iterate/", token, headers={"X-SocTasks-Meta": slices.to_header()}))


@pytest.fixture
def on_app_engine(monkeypatch):
    monkeypatch.setattr(cloud, "on_app_engine", lambda: True)


@pytest.mark.parametrize("method", ["get", "post"])
def test_cron_on_app_engine_starts_a_task(on_app_engine, task_queues, site_calls, method):
    call = getattr(Client(enforce_csrf_checks=True), method)
    assert call("/tasks/cron/", headers={"X-Appengine-Cron": "true"}).status_code == 202
    assert site_calls == []
    for value in ("false", "", "TRUE", "1"):
        assert call("/tasks/cron/", headers={"X-Appengine-Cron": value}).status_code in (403, 405)
    assert refused(call("/tasks/behave/", headers={"X-Appengine-Cron": "true"}))
    site.behaviours["for_cron"] = lambda request: site.calls.append(soc_tasks.is_in_cron())
    task_queues.process_task_queues()
    assert len(site_calls) == 2


def test_cron_is_believed_on_app_engine_only(monkeypatch, settings, site_calls):
    calls = [
        ("cloud_tasks", "http", "standard"),
        ("cloud_tasks", "app_engine", "flex"),
        ("memory", "app_engine", "standard"),
    ]
    for backend, target, environment in calls:
        settings.SOC_TASKS = {"BACKEND": backend, "TARGET": target}
        monkeypatch.setenv("GAE_ENV", environment)
        assert refused(Client().post("/tasks/cron/", headers={"X-Appengine-Cron": "true"}))
        assert refused(Client().post("/guarded/", headers={"X-Appengine-Cron": "true"}))
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks", "TARGET": "app_engine"}
    monkeypatch.setenv("GAE_ENV", "standard")
    assert Client().post("/guarded/", headers={"X-Appengine-Cron": "true"}).content == b"hello"


def test_other_views_are_guarded_by_task_only(browser, on_app_engine, site_calls):
    client, token = browser(is_superuser=True)
    assert refused(client.post("/guarded/", token))
    assert refused(client.get("/guarded/"))
    assert refused(client.post("/guarded-or-superuser/"))
    assert site_calls == []
    assert client.post("/guarded-or-superuser/", token).content == b"hello"
    assert client.get("/guarded-or-superuser/").content == b"hello"
    assert Client().get("/guarded/", headers={"X-Appengine-Cron": "true"}).content == b"hello"


ASK = (
    soc_tasks.is_in_task,
    soc_tasks.is_in_cron,
    soc_tasks.task_name,
    soc_tasks.task_queue_name,
    soc_tasks.task_retry_count,
    soc_tasks.task_execution_count,
)


def test_the_current_call_is_told_inside_only(on_app_engine, site_calls):
    told = []

    @soc_tasks.task_only
    def view(request):
        told.append([ask() for ask in ASK])
        return HttpResponse()

    def fail(request, **_):
        told.append([ask() for ask in ASK])
        raise ValueError("x")

    outside = [False, False, None, None, None, None]
    site.behaviours["behave"] = fail
    assert [ask() for ask in ASK] == outside
    with route(view):
        deliver("/view/", retry_count=2, execution_count=1)
        Client().get("/view/", headers={"X-Appengine-Cron": "true"})
    deliver("/tasks/behave/", retry_count=3)
    assert [ask() for ask in ASK] == outside
    assert told == [
        [True, False, "made", "default", 2, 1],
        [False, True, None, None, None, None],
        [True, False, "made", "default", 3, 0],
    ]


def test_threads_of_forged_calls_among_real_ones(site_calls):
    """Identity is judged on the request: what runs beside it, in whatever thread, lends it nothing."""
    handler = WSGIHandler()
    dispatch = InProcessDispatcher(handler)
    made = Task(
        queue="default", name="made", path="/view/", body=b"who=real", headers={**FORM, "X-SocTasks-Meta": META}
    )
    ran = []

    @task
    def view(request):
        ran.append(request.POST["who"])

    def forge(random):
        headers = {"X-SocTasks-Meta": META, **random.choice(FORGED)}
        request = RequestFactory().generic("POST", "/view/", b"who=forged", FORM["Content-Type"], headers=headers)
        environ = {**request.environ, DELIVERY_KEY: random.choice(["x", repr(Delivery(queue="default", name="made"))])}
        answers = []
        list(handler(environ, lambda status, headers: answers.append(int(status[:3]))))
        return answers[0]

    def work(number):
        random = Random(number)
        return [
            forge(random) if index % 6 else dispatch(made, Delivery(queue="default", name="made")).status
            for index in range(600)
        ]

    with route(view, MIDDLEWARE=["django.middleware.common.CommonMiddleware"]), ThreadPoolExecutor(8) as threads:
        statuses = [status for part in threads.map(work, range(8)) for status in part]
    assert (statuses.count(200), statuses.count(403)) == (800, 4000)
    assert ran == ["real"] * 800
