"""What is sent, as it was recorded on the wire, and what is made of the answers."""

from __future__ import annotations

import json
import socket
import threading
from urllib.request import urlopen

import pytest
import urllib3
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.transport import urllib3 as transport
from google.oauth2 import id_token
from google.protobuf.field_mask_pb2 import FieldMask

from soc_tasks.engine.caps import RECOVERY_DOUBLING
from soc_tasks.engine.server import dispatch
from tests.engine.running import until
from tests.engine.server.clients import make_client
from tests.engine.server.conftest import PARENT
from tests.engine.server.test_end_to_end import is_gone
from tests.live import PATIENCE

LATER = {"min_backoff": "60s", "max_backoff": "60s"}
APP_ENGINE_AGENT = "AppEngine-Google; (+http://code.google.com/appengine)"


def take_all(target, count):
    for _ in range(count):
        target.take()
    return target.requests


def facts(request, prefix):
    """Headers of a family, without what differs from run to run."""
    found = {name.removeprefix(prefix): value for name, value in request.headers.items() if name.startswith(prefix)}
    assert found.pop("QueueName") == "quick"
    assert found.pop("TaskName") == "a"
    assert float(found.pop("TaskETA")) > 1_700_000_000
    return found


@pytest.mark.parametrize(
    ("kind", "prefix", "agent", "told"),
    [
        (
            "http_request",
            "X-CloudTasks-",
            "Google-Cloud-Tasks",
            [
                {"TaskRetryCount": "0", "TaskExecutionCount": "0"},
                {
                    "TaskRetryCount": "1",
                    "TaskExecutionCount": "0",
                    "TaskPreviousResponse": "500",
                    "TaskRetryReason": "",
                },
                {
                    "TaskRetryCount": "2",
                    "TaskExecutionCount": "1",
                    "TaskPreviousResponse": "404",
                    "TaskRetryReason": "",
                },
            ],
        ),
        (
            "app_engine_http_request",
            "X-AppEngine-",
            APP_ENGINE_AGENT,
            [
                {"TaskRetryCount": "0", "TaskExecutionCount": "0"},
                {
                    "TaskRetryCount": "1",
                    "TaskExecutionCount": "1",
                    "TaskPreviousResponse": "500",
                    "TaskRetryReason": "App Error",
                },
                {
                    "TaskRetryCount": "2",
                    "TaskExecutionCount": "2",
                    "TaskPreviousResponse": "404",
                    "TaskRetryReason": "App Error",
                },
            ],
        ),
    ],
)
def test_headers_of_three_attempts(client, target, queue, kind, prefix, agent, told):
    target.answers = ["500 No", "404 No", "200 OK"]
    where = {"url": f"{target.url}/x"} if kind == "http_request" else {"relative_uri": "/x"}
    client.create_task(parent=queue, task={"name": f"{queue}/tasks/a", kind: where})
    requests = take_all(target, 3)
    assert [facts(request, prefix) for request in requests] == told
    assert {request.first for request in requests} == {"POST /x HTTP/1.1"}
    for request in requests:
        others = {name: value for name, value in request.headers.items() if not name.startswith(prefix)}
        assert others == {
            "Host": target.url.removeprefix("http://"),
            "User-Agent": agent,
            "Content-Length": "0",
        }


def test_headers_of_the_client_keep_their_case_and_reserved_ones_are_not_theirs(client, target, queue):
    headers = {
        "X-Mixed-Case": "preserve-me",
        "content-type": "application/json",
        "user-agent": "mine",
        "Host": "elsewhere",
        "content-length": "3",
        "X-Google-A": "b",
        "x-appengine-b": "c",
        "x-cloudtasks-queuename": "another",
        "Authorization": "Basic abc",
        "X-Letters": "é",
    }
    task = client.create_task(
        parent=queue,
        task={"name": f"{queue}/tasks/a", "http_request": {"url": target.url, "headers": headers, "body": b"{}"}},
    )
    assert task.http_request.headers["User-Agent"] == "Google-Cloud-Tasks"
    [request] = target.take()
    assert facts(request, "X-CloudTasks-") == {"TaskRetryCount": "0", "TaskExecutionCount": "0"}
    others = {name: value for name, value in request.headers.items() if not name.startswith("X-CloudTasks-")}
    assert others == {
        "X-Mixed-Case": "preserve-me",
        "content-type": "application/json",
        "User-Agent": "Google-Cloud-Tasks",
        "Authorization": "Basic abc",
        "X-Letters": "Ã©",
        "Host": target.url.removeprefix("http://"),
        "Content-Length": "2",
    }
    assert request.body == b"{}"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (
            {"X-Mixed-Case": "preserve-me", "content-type": "application/json"},
            {"content-type": "application/json", "User-Agent": APP_ENGINE_AGENT},
        ),
        (
            {"X-Mixed-Case": "preserve-me"},
            {"Content-Type": "application/octet-stream", "User-Agent": APP_ENGINE_AGENT},
        ),
        (
            {"X-Mixed-Case": "preserve-me", "user-agent": "mine"},
            {"Content-Type": "application/octet-stream", "User-Agent": f"mine {APP_ENGINE_AGENT}"},
        ),
    ],
)
def test_headers_of_app_engine_are_stored_with_defaults(client, target, queue, sent, stored):
    client.pause_queue(name=queue)
    request = {"headers": sent, "body": b'{"hello":"world"}'}
    task = client.create_task(parent=queue, task={"app_engine_http_request": request})
    expected = {"X-Mixed-Case": "preserve-me", "Content-Length": "17", **stored}
    assert dict(task.app_engine_http_request.headers) == expected
    client.resume_queue(name=queue)
    [came] = target.take()
    assert expected.items() <= came.headers.items()


@pytest.mark.parametrize(
    ("kind", "prefix", "previous", "reason"),
    [
        ("http_request", "X-CloudTasks-", "504", ""),
        ("app_engine_http_request", "X-AppEngine-", "0", "Instance Unavailable"),
    ],
)
def test_an_attempt_without_answer(client, target, queue, monkeypatch, kind, prefix, previous, reason):
    # Deadlines begin at 15 s: what the dispatcher takes for one is shortened.
    call = dispatch.ServedDispatcher._attempt
    count = []

    def hurry(self, task, delivery, began):
        count.append(1)
        if len(count) == 1:
            object.__setattr__(delivery, "deadline", dispatch.time.monotonic() + 0.2)
        return call(self, task, delivery, began)

    monkeypatch.setattr(dispatch.ServedDispatcher, "_attempt", hurry)
    target.hold = threading.Event()
    where = {"url": f"{target.url}/x"} if kind == "http_request" else {"relative_uri": "/x"}
    name = f"{queue}/tasks/a"
    client.create_task(parent=queue, task={"name": name, kind: where})
    request = take_all(target, 2)[-1]
    assert facts(request, prefix) == {
        "TaskRetryCount": "1",
        "TaskExecutionCount": "0",
        "TaskPreviousResponse": previous,
        "TaskRetryReason": reason,
    }
    task = client.get_task(name=name)
    assert (task.dispatch_count, task.response_count) == (2, 0)
    target.hold.set()
    until(lambda: is_gone(client, name))


@pytest.mark.parametrize("answer", ["302 Found", ("302 Found", "Location: /elsewhere"), "300 Many", "400 Bad"])
def test_all_but_2xx_is_a_failed_attempt(client, target, queue, answer):
    target.answers = [answer, "204 No Content"]
    client.create_task(parent=queue, task={"http_request": {"url": target.url}})
    requests = take_all(target, 2)
    status = (answer if isinstance(answer, str) else answer[0])[:3]
    assert requests[1].headers["X-CloudTasks-TaskPreviousResponse"] == status
    assert {request.first for request in requests} == {"POST / HTTP/1.1"}


def test_nobody_there(client, queue):
    task = client.create_task(
        parent=queue, task={"http_request": {"url": "http://127.0.0.1:1/"}, "retry_config": LATER}
    )
    # While it is under way it counts as dispatched already.
    until(lambda: client.get_task(name=task.name).last_attempt.response_status.code == 14)
    shown = client.get_task(name=task.name)
    assert (shown.dispatch_count, shown.response_count) == (1, 0)


def test_nothing_is_attempted_before_the_site_listens(serve, target, monkeypatch):
    """What waits from the last time does not use up its attempts while the site is starting."""
    asked, there = threading.Semaphore(0), threading.Event()

    def listens(host, port):
        assert (host, port) == ("127.0.0.1", 8000)
        asked.release()
        return there.is_set()

    monkeypatch.setattr(dispatch, "listens", listens)
    with serve(after=("127.0.0.1", 8000)) as server, make_client(server.port) as client:
        queue = client.create_queue(parent=PARENT, queue={"name": f"{PARENT}/queues/quick"}).name
        name = client.create_task(
            parent=queue, task={"http_request": {"url": target.url}, "retry_config": {"max_attempts": 1}}
        ).name
        for _ in range(3):
            assert asked.acquire(timeout=PATIENCE)
        assert target.requests == []
        assert client.get_task(name=name).dispatch_count == 0
        there.set()
        target.take()
        until(lambda: is_gone(client, name))


def test_who_listens():
    with socket.socket() as site:
        site.bind(("127.0.0.1", 0))
        assert not dispatch.listens(*site.getsockname())
        site.listen()
        assert dispatch.listens(*site.getsockname())


def test_methods(client, target, queue):
    for method in ("GET", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"):
        client.create_task(parent=queue, task={"http_request": {"url": target.url, "http_method": method}})
        assert target.take()[-1].first == f"{method} / HTTP/1.1"


# Tokens.


@pytest.fixture
def token(server, client, target, queue):
    """Give the token of a task, and where its keys are."""

    def take(**oidc):
        client.create_task(
            parent=queue,
            task={
                "http_request": {
                    "url": f"{target.url}/p?q=1",
                    "headers": {"Authorization": "mine"},
                    "oidc_token": {"service_account_email": "me@demo.iam.gserviceaccount.com", **oidc},
                }
            },
        )
        [request] = target.take()
        kind, token = request.headers["Authorization"].split()
        assert kind == "Bearer"
        return token, f"http://127.0.0.1:{server.keys_port}"

    return take


def test_a_token_is_verified_by_googles_library(token):
    made, base = token(audience="https://example.org")
    request = transport.Request(urllib3.PoolManager())
    claims = id_token.verify_token(made, request, audience="https://example.org", certs_url=f"{base}/certs")
    assert (claims["iss"], claims["email"], claims["email_verified"]) == (base, "me@demo.iam.gserviceaccount.com", True)
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["sub"] == claims["azp"]
    assert claims["sub"].isdecimal()
    with pytest.raises((ValueError, auth_exceptions.GoogleAuthError)):
        id_token.verify_token(made, request, audience="https://example.com", certs_url=f"{base}/certs")


def test_a_token_without_audience_has_the_url_of_its_task(token, target):
    made, base = token()
    claims = id_token.verify_token(made, transport.Request(urllib3.PoolManager()), certs_url=f"{base}/certs")
    assert claims["aud"] == f"{target.url}/p?q=1"


def test_keys_for_other_libraries(token):
    _, base = token()
    with urlopen(f"{base}/.well-known/openid-configuration") as answer:
        told = json.load(answer)
    with urlopen(told["jwks_uri"]) as answer:
        [key] = json.load(answer)["keys"]
    with urlopen(f"{base}/certs") as answer:
        assert list(json.load(answer)) == [key["kid"]]
    assert told["issuer"] == base
    assert (key["kty"], key["alg"], key["e"]) == ("RSA", "RS256", "AQAB")


# What queues override.


def test_routing_of_app_engine(serve, target):
    services = {"default": "http://127.0.0.1:1", "mail": target.url}
    with serve(services=services) as server, make_client(server.port) as client:
        name, mail = f"{PARENT}/queues/mailing", {"service": "mail"}
        queue = client.create_queue(parent=PARENT, queue={"name": name, "app_engine_routing_override": mail})
        assert queue.app_engine_routing_override.service == "mail"
        routing = {"service": "web", "version": "v1"}
        task = client.create_task(parent=name, task={"app_engine_http_request": {"app_engine_routing": routing}})
        assert task.app_engine_http_request.app_engine_routing.host == "v1-dot-web-dot-demo.appspot.com"
        target.take()


def test_a_target_of_the_queue(client, target, queue):
    """It goes before the task's own, also for tasks that were queued before."""
    client.pause_queue(name=queue)
    host, port = target.url.removeprefix("http://").split(":")
    client.create_task(
        parent=queue,
        task={"http_request": {"url": "https://example.org:99/a?b=c", "headers": {"x-one": "1"}, "body": b"x"}},
    )
    client.update_queue(
        queue={
            "name": queue,
            "http_target": {
                "uri_override": {
                    "scheme": "HTTP",
                    "host": host,
                    "port": int(port),
                    "path_override": {"path": "/p"},
                    "query_override": {"query_params": "q=1"},
                },
                "http_method": "GET",
                "header_overrides": [
                    {"header": {"key": "X-One", "value": "2"}},
                    {"header": {"key": "Host", "value": "h"}},
                ],
                "oidc_token": {"service_account_email": "me@demo", "audience": "all"},
            },
        },
        update_mask=FieldMask(paths=["http_target"]),
    )
    client.resume_queue(name=queue)
    [request] = target.take()
    assert (request.first, request.body) == ("GET /p?q=1 HTTP/1.1", b"")
    assert (request.headers["X-One"], request.headers["Host"]) == ("2", f"{host}:{port}")
    assert request.headers["Authorization"].startswith("Bearer ")
    assert "x-one" not in request.headers
    # Named and not given: gone.
    client.update_queue(queue={"name": queue}, update_mask=FieldMask(paths=["http_target"]))
    client.create_task(parent=queue, task={"http_request": {"url": f"{target.url}/own"}})
    assert target.take()[-1].first == "POST /own HTTP/1.1"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("http_request", "429 Slow"), ("http_request", "503 No"), ("app_engine_http_request", "503 No")],
)
def test_overload_slows_queues_but_not_by_429_of_app_engine(server, client, target, kind, status):
    name = f"{PARENT}/queues/wide"
    client.create_queue(parent=PARENT, queue={"name": name, "retry_config": LATER})

    def fail(status, **task):
        """Whether the queue is held by back-pressure then, not by its slow start."""
        target.answers = [status]
        task = client.create_task(parent=name, task=task)
        target.take()
        until(lambda: client.get_task(name=task.name).response_count == 1)
        [(doubling,)] = server.store.select("SELECT doubling FROM soc_tasks_engine_queue")
        return doubling == RECOVERY_DOUBLING

    assert not fail("429 Slow", app_engine_http_request={})
    assert fail(status, **{kind: {"url": target.url} if kind == "http_request" else {}})


def test_a_task_that_ran_out_of_attempts_is_gone_without_a_word(client, target, queue):
    target.answers = ["500 No"]
    name = f"{queue}/tasks/a"
    client.create_task(parent=queue, task={"name": name, "http_request": {"url": target.url}})
    take_all(target, 5)
    until(lambda: is_gone(client, name))
    assert len(target.requests) == 5
    with pytest.raises(exceptions.AlreadyExists, match="existed too recently"):
        client.create_task(parent=queue, task={"name": name, "http_request": {"url": target.url}})


def test_a_tasks_own_retry_config_goes_before_its_queues(client, target, queue):
    target.answers, target.hold = ["500 No"], threading.Event()
    task = client.create_task(
        parent=queue, task={"http_request": {"url": target.url}, "retry_config": {"max_attempts": 2}}
    )
    assert task.retry_config.max_attempts == 2
    assert client.get_task(name=task.name).retry_config.max_attempts == 2
    target.hold.set()
    take_all(target, 2)
    until(lambda: is_gone(client, task.name))
    assert len(target.requests) == 2
