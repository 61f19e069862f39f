"""Calls by HTTP to real servers: what is sent, what comes back, and servers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest

from soc_tasks.engine import wire
from soc_tasks.engine.http import HttpDispatcher
from soc_tasks.values import Answer, Delivery
from tests.engine.tasks import make_task
from tests.live import CERTIFICATE, read_request, script, serve


def call(url, task=None, *, seconds=30.0, dispatch=None, **fields):
    task = task or make_task("/x?a=1", body=b"x=1")
    delivery = Delivery(queue=task.queue, name=task.name, deadline=time.monotonic() + seconds, **fields)
    return (dispatch or HttpDispatcher(url, {}))(task, delivery)


def respond(status="200 OK", *headers, body=b""):
    """Return a WSGI application that always answers the same."""

    def app(environ, start_response):
        environ["wsgi.input"].read()
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    return app


def read_and(act, connection, number):
    read_request(connection)
    act(connection)


def test_what_is_sent():
    with serve(respond()) as server:
        eta = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
        task = make_task(
            "/a%20b/?q=%c3", name="n", queue="q", body=b"x=1", headers={"X-Mine": "y", "Content-Type": "a/b"}
        )
        answer = call(server.url, task, retry_count=2, execution_count=1, eta=eta, previous_status=503)
    assert answer == Answer(status=200)
    [environ] = server.environs
    told = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_") and "SOCTASKS" not in name}
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["CONTENT_LENGTH"]) == ("POST", "/a b/", "3")
    assert environ["CONTENT_TYPE"] == "a/b"
    assert told == {
        "HOST": server.url.removeprefix("http://"),
        "ACCEPT_ENCODING": "identity",
        "USER_AGENT": "soc_tasks",
        "X_MINE": "y",
        "X_CLOUDTASKS_QUEUENAME": "q",
        "X_CLOUDTASKS_TASKNAME": "n",
        "X_CLOUDTASKS_TASKRETRYCOUNT": "2",
        "X_CLOUDTASKS_TASKEXECUTIONCOUNT": "1",
        "X_CLOUDTASKS_TASKETA": "1767323045.000006",
        "X_CLOUDTASKS_TASKPREVIOUSRESPONSE": "503",
        "X_CLOUDTASKS_TASKRETRYREASON": "",
    }


def test_a_first_attempt_tells_of_no_other():
    with serve(respond()) as server:
        call(server.url, make_task("/x", headers={"user-agent": "mine"}))
    [environ] = server.environs
    assert not [name for name in environ if "PREVIOUS" in name or "REASON" in name]
    assert (environ["HTTP_USER_AGENT"], environ["CONTENT_TYPE"]) == ("mine", "application/octet-stream")


@pytest.mark.parametrize(
    ("status", "headers", "answer"),
    [
        ("200 OK", [], Answer(status=200)),
        ("200 OK", [("x-soctasks-outcome", "dead")], Answer(status=200, outcome="dead")),
        ("500 x", [("X-SocTasks-Outcome", "busy")], Answer(status=500, outcome="busy")),
        ("500 x", [("X-SOCTASKS-COUNTDOWN", "2.5")], Answer(status=500, countdown=2.5)),
        ("500 x", [("X-SocTasks-Countdown", "soon")], Answer(status=500)),
        ("500 x", [("X-SocTasks-Countdown", "1"), ("X-SocTasks-Countdown", "2")], Answer(status=500)),
        ("503 x", [("retry-after", "7")], Answer(status=503, retry_after=7.0)),
        ("429 x", [("Retry-After", "x")], Answer(status=429)),
        ("500 x", [("Retry-After", "7")], Answer(status=500)),
        ("404 x", [("X-SocTasks-Outcome", "nonsense")], Answer(status=404)),
    ],
)
def test_what_comes_back(status, headers, answer):
    with serve(respond(status, *headers)) as server:
        assert call(server.url) == answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_failures_and_never_followed(status, caplog):
    with serve(respond()) as other, serve(respond(f"{status} x", ("Location", other.url + "/"))) as server:
        assert call(server.url).status == status
        assert len(server.environs) == 1
        assert other.environs == []
    assert "redirects are not followed" in caplog.text


def test_no_cookie_no_proxy_no_password(monkeypatch, tmp_path):
    with serve(respond()) as proxy, serve(respond("200 OK", ("Set-Cookie", "a=b"))) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y")
        monkeypatch.setenv("HOME", str(tmp_path))
        dispatch = HttpDispatcher(server.url, {})
        assert [call(None, dispatch=dispatch).status for _ in range(2)] == [200, 200]
        assert proxy.environs == []
    assert not [
        name for environ in server.environs for name in environ if name in ("HTTP_COOKIE", "HTTP_AUTHORIZATION")
    ]


@pytest.mark.parametrize("body", [b"", b"x" * 1000, b"x" * wire.MOST_BODY])
def test_a_connection_is_used_again(body):
    with serve(respond(body=body)) as server:
        dispatch = HttpDispatcher(server.url, {})
        assert {call(None, dispatch=dispatch).status for _ in range(20)} == {200}
        assert (len(server.environs), len(server.sockets)) == (20, 1)


def test_so_are_those_of_failures():
    with serve(respond("500 x", body=b"a traceback")) as server:
        dispatch = HttpDispatcher(server.url, {})
        assert {call(None, dispatch=dispatch).status for _ in range(5)} == {500}
        assert len(server.sockets) == 1


def test_each_thread_has_one():
    meet = threading.Barrier(4, timeout=30)

    def app(environ, start_response):
        meet.wait()
        return respond()(environ, start_response)

    with serve(app) as server, ThreadPoolExecutor(4) as threads:
        dispatch = HttpDispatcher(server.url, {})
        for _ in range(3):
            assert list(threads.map(lambda _: call(None, dispatch=dispatch).status, range(4))) == [200] * 4
        assert len(server.sockets) == 4


def test_one_that_rested_for_long_is_not_used_again(monkeypatch):
    with serve(respond()) as server:
        dispatch = HttpDispatcher(server.url, {})
        call(None, dispatch=dispatch)
        monkeypatch.setattr(wire, "IDLE", 0.0)
        assert call(None, dispatch=dispatch).status == 200
        assert len(server.sockets) == 2


def test_one_that_the_server_closed_is_not_used_again():
    ended = threading.Event()

    def act(connection, number):
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_RDWR)
        ended.set()

    with script(act) as (url, count):
        dispatch = HttpDispatcher(url, {})
        for number in range(1, 4):
            assert call(None, dispatch=dispatch).status == 200
            assert ended.wait(30)
            ended.clear()
            assert len(count) == number


def test_a_body_without_end_is_left_and_the_answer_counts():
    def act(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with script(partial(read_and, act)) as (url, _):
        assert call(url).status == 200


def trickle(first, connection):
    """Send a byte now and then, for ever."""
    connection.sendall(first)
    never = threading.Event()
    while not never.wait(0.01):
        connection.sendall(b"x")


@pytest.mark.parametrize(
    "first",
    [b"", b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"],
    ids=["status", "reason", "header", "body"],
)
def test_a_server_that_trickles_is_held_to_the_deadline(first):
    with script(partial(read_and, partial(trickle, first))) as (url, _):
        began = time.monotonic()
        assert call(url, seconds=0.3) == Answer(status=504)
        assert 0.3 <= time.monotonic() - began < 0.3 + HttpDispatcher.patience


def test_a_server_that_says_nothing_is_held_to_the_deadline():
    over = threading.Event()
    with script(lambda connection, number: over.wait(30)) as (url, _):
        assert call(url, seconds=0.2) == Answer(status=504)
        over.set()


def test_a_server_that_takes_nothing_is_held_to_the_deadline():
    over = threading.Event()
    with script(lambda connection, number: over.wait(30)) as (url, _):
        task = make_task("/x", body=b"x" * 50_000_000)
        assert call(url, task, seconds=0.3) == Answer(status=504)
        over.set()


def test_a_task_whose_time_is_over_is_not_sent():
    with serve(respond()) as server:
        assert call(server.url, seconds=-1.0) == Answer(status=504)
        assert server.environs == []


BROKEN = {
    "closed": b"",
    "no HTTP": b"hello\r\n\r\n",
    "half a status": b"HTTP/1.1 20",
    "half a header": b"HTTP/1.1 200 OK\r\nX-A",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx",
    "bad chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "endless line": b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X-A: x\r\n" * 1000 + b"\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_none_is_a_failed_attempt(data, caplog):
    with script(partial(read_and, lambda connection: connection.sendall(data))) as (url, count):
        answer = call(url)
        # Once: the queue tries again, not the dispatcher.
        assert len(count) == 1
    # Half a header is taken for a whole one; what was sent of the status counts.
    assert answer.status in ((200, 502) if data == BROKEN["half a header"] else (502,))


def test_no_connection_is_a_failed_attempt_and_says_so_now_and_then(caplog):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    dispatch = HttpDispatcher(url, {})
    assert [call(None, dispatch=dispatch) for _ in range(3)] == [Answer(status=502)] * 3
    [record] = caplog.records
    assert url in record.message
    assert "refused" in record.message
    assert " at 0x" not in record.message


def test_why_it_failed_is_told_to_whoever_made_the_call():
    delivery = Delivery(queue="default", name="n", deadline=time.monotonic() + 30)
    assert HttpDispatcher("http://127.0.0.1:1", {})(make_task("/x"), delivery).status == 502
    [error] = delivery.failures
    assert type(error).__name__ == "NewConnectionError"


def test_a_host_that_does_not_exist():
    assert call("http://no-such-host.invalid") == Answer(status=502)


def test_a_certificate_that_nobody_knows_is_refused(caplog):
    with serve(respond(), secure=True) as server:
        assert call(server.url) == Answer(status=502)
        assert server.environs == []
    assert "certificate verify failed" in caplog.text


def test_a_certificate_of_another_host_is_refused(caplog, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with serve(respond(), secure=True) as server:
        assert call(server.url.replace("127.0.0.1", "127.0.0.2")) == Answer(status=502)
        assert server.environs == []


def test_a_certificate_that_is_known_is_good_and_its_connection_is_used_again(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with serve(respond(), secure=True) as server:
        dispatch = HttpDispatcher(server.url, {})
        assert {call(None, dispatch=dispatch).status for _ in range(5)} == {200}
        assert len(server.sockets) == 1


def test_a_secure_server_that_trickles_is_held_to_the_deadline(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    over = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "100000")])
        while not over.wait(0.01):
            yield b"x"

    with serve(app, secure=True) as server:
        assert call(server.url, seconds=0.4) == Answer(status=504)
        over.set()


def test_a_server_that_never_shakes_hands_is_held_to_the_deadline():
    over = threading.Event()
    with script(lambda connection, number: over.wait(30)) as (url, _):
        assert call(url.replace("http:", "https:"), seconds=0.2) == Answer(status=504)
        over.set()


@pytest.mark.parametrize(("status", "hint"), [(403, "SECRET_KEY"), (400, "ALLOWED_HOSTS")])
def test_what_a_newcomer_runs_into_is_explained(status, hint, caplog):
    with serve(respond(f"{status} x")) as server:
        assert call(server.url).status == status
    assert hint in caplog.text


def test_services_have_their_own_urls(caplog):
    with serve(respond()) as here, serve(respond()) as mail:
        dispatch = HttpDispatcher(here.url, {"mail": mail.url + "/"})
        assert call(None, make_task("/here"), dispatch=dispatch).status == 200
        assert call(None, make_task("/there", service="mail"), dispatch=dispatch).status == 200
        assert call(None, make_task("/nowhere", service="gone"), dispatch=dispatch) == Answer(status=502)
        assert [environ["PATH_INFO"] for environ in here.environs + mail.environs] == ["/here", "/there"]
    assert "service gone" in caplog.text
