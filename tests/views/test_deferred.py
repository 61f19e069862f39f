"""The view that calls deferred functions: what becomes of a call, however often it comes and whatever it says."""

from __future__ import annotations

import json
import logging
from urllib.parse import quote_plus

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError, connections
from django.test import Client

from soc_tasks import FatalTaskError, PermanentTaskFailure, SingularTaskFailure, defer
from soc_tasks.logic import calls
from soc_tasks.models import PayloadRow, ReceiptRow
from soc_tasks.state import get_state
from soc_tasks.state.django import DjangoState
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from soc_tasks.values import DELIVERY_KEY, Delivery
from tests.specimen import functions
from tests.specimen.functions import Point, note, raise_, write_row
from tests.specimen.models import Row
from tests.specimen.noise import LARGE, form, queued
from tests.views.deferring import URL, letters, outcome, post, send, signed, write

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def test_what_the_helper_writes_is_a_call(called):
    assert outcome(post(write())) == (200, "")
    assert outcome(post(signed(write()["payload"], "packed"))) == (200, "")
    assert called == [((1,), {})] * 2


# Outcomes


@pytest.mark.parametrize("error", [PermanentTaskFailure, FatalTaskError])
def test_a_fatal_error_ends_the_task(memory_backend, called, caplog, error):
    defer(raise_, error)
    assert outcome(send(queued(memory_backend))) == (200, "dead")
    [letter] = letters()
    assert (letter.error_type, letter.error, letter.attempts) == (f"soc_tasks.errors.{error.__name__}", "on purpose", 1)
    assert letter.task.path == URL
    assert "tests.specimen.functions.raise_" in caplog.text


def test_a_singular_failure_comes_again_quietly(memory_backend, called, caplog):
    caplog.set_level(logging.WARNING, "soc_tasks")
    defer(raise_, functions.Quiet)
    assert outcome(send(queued(memory_backend))) == (408, "")
    assert issubclass(functions.Quiet, SingularTaskFailure)
    assert (letters(), caplog.text) == ([], "")


def test_every_other_error_is_logged_with_the_name_of_the_function_and_comes_again(memory_backend, called, caplog):
    defer(raise_, functions.LoudError)
    assert outcome(send(queued(memory_backend))) == (500, "")
    assert "(tests.specimen.functions.raise_) failed at attempt 1" in caplog.text
    assert "LoudError: on purpose" in caplog.text
    assert letters() == []
    assert outcome(send(queued(memory_backend), delivery={"is_last_attempt": True, "retry_count": 4})) == (200, "dead")
    assert letters()[0].attempts == 5


def test_the_exit_of_a_function_ends_the_attempt_alone_and_tells_no_arguments(memory_backend, called, caplog):
    for arguments in ((), ("sentinel-4711",)):
        defer(functions.leave, *arguments)
    for task in memory_backend.tasks_now():
        assert outcome(send(task)) == (500, "")
    assert "tests.specimen.functions.leave called sys.exit()" in caplog.text
    assert "sentinel-4711" not in caplog.text


def test_a_function_that_hides_that_it_is_async_is_not_taken_for_done(memory_backend, called, caplog):
    defer(functions.hidden)
    assert outcome(send(queued(memory_backend))) == (500, "")
    assert "returned a coroutine" in caplog.text
    assert called == []


def test_the_environment_tells_a_function_of_its_call_and_nobody_after_it(task_queues, settings, called):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}]
    defer(functions.tell, _name="once", _queue="mail")
    task_queues.process_task_queues()
    functions.tell()
    assert called == [(True, False, "once", "mail", 0, 0), (False, False, None, None, None, None)]


def test_what_it_returns_is_dropped(task_queues):
    defer(functions.answer, 404)
    defer(functions.answer, None)
    task_queues.process_task_queues()
    assert letters() == []


def test_arguments_are_in_no_line_of_the_log(task_queues, called, caplog):
    caplog.set_level(logging.DEBUG, "soc_tasks")
    for function in (note, raise_, functions.fail_with):
        defer(function, *(("sentinel-4711",) if function is not raise_ else (functions.LoudError,)))
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert "tests.specimen.functions" in caplog.text
    assert "sentinel-4711" not in caplog.text


def test_the_original_error_reaches_the_test(task_queues, called):
    defer(raise_, functions.LoudError)
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert isinstance(caught.value.original_exception, functions.LoudError)


# Atomic, and again


def test_an_atomic_call_runs_once(memory_backend):
    defer(write_row, 7, _atomic=True)
    task = queued(memory_backend)
    for _ in range(3):
        assert outcome(send(task)) == (200, "")
    assert [row.hits for row in Row.objects.all()] == [7]
    assert ReceiptRow.objects.get().start_id == task.start_id


def test_an_atomic_call_that_fails_leaves_nothing_and_comes_again(memory_backend, monkeypatch, called):
    monkeypatch.setattr(functions, "broken", True)
    defer(functions.write_and_fail_if_broken, 7, _atomic=True)
    task = queued(memory_backend)
    assert outcome(send(task)) == (500, "")
    assert (Row.objects.count(), ReceiptRow.objects.count()) == (0, 0)
    monkeypatch.setattr(functions, "broken", False)
    assert outcome(send(task)) == (200, "")
    assert (Row.objects.count(), ReceiptRow.objects.count()) == (1, 1)


def test_without_atomic_what_was_written_before_the_error_stays(memory_backend, monkeypatch):
    monkeypatch.setattr(functions, "broken", True)
    defer(functions.write_and_fail_if_broken, 7)
    assert outcome(send(queued(memory_backend))) == (500, "")
    assert Row.objects.count() == 1


@pytest.mark.parametrize("atomic", [True, False])
def test_a_stored_call_that_comes_after_its_end_is_a_duplicate(narrow, memory_backend, called, atomic):
    defer(note, LARGE, _atomic=atomic)
    task = queued(memory_backend)
    for _ in range(3):
        assert outcome(send(task)) == (200, "")
    assert called == [((LARGE,), {})]
    assert letters() == []


def test_a_stored_call_that_fails_keeps_what_it_needs(narrow, memory_backend, monkeypatch, called):
    monkeypatch.setattr(functions, "broken", True)
    for atomic in (False, True):
        defer(functions.fail_if_broken, LARGE, _atomic=atomic)
    for task in memory_backend.tasks_now():
        assert outcome(send(task)) == (500, "")
        assert get_state().get_payload(task.start_id)
    monkeypatch.setattr(functions, "broken", False)
    for task in memory_backend.tasks_now():
        assert outcome(send(task)) == (200, "")
        assert get_state().get_payload(task.start_id) == b""
    assert called == [LARGE, LARGE]


def test_what_a_stored_call_needs_is_there_until_another_alias_has_committed(narrow, memory_backend, monkeypatch):
    """Its receipt could not commit: the call must not be taken for one that was made."""
    defer(functions.write_there, LARGE, _atomic=True, _using="other")
    task = queued(memory_backend)
    monkeypatch.setattr(functions, "broken", True)
    assert outcome(send(task)) == (500, "")
    monkeypatch.setattr(functions, "broken", False)
    assert get_state().get_payload(task.start_id)
    assert outcome(send(task)) == (200, "")
    assert Row.objects.using("other").count() == 1
    assert get_state().get_payload(task.start_id) == b""
    assert ReceiptRow.objects.using("other").count() == 1


def test_what_cannot_be_cleared_after_the_call_does_not_undo_it(narrow, memory_backend, monkeypatch, called, caplog):
    def fail(*_):
        raise OperationalError("disk full")

    defer(note, LARGE)
    monkeypatch.setattr(DjangoState, "clear_payloads", fail)
    assert outcome(send(queued(memory_backend))) == (200, "")
    assert len(called) == 1
    assert "still in the state" in caplog.text


def test_what_is_not_in_the_state_may_be_yet(narrow, memory_backend, called):
    defer(note, LARGE)
    task = queued(memory_backend)
    [kept] = PayloadRow.objects.values()
    PayloadRow.objects.all().delete()
    assert outcome(send(task)) == (500, "")
    assert letters() == []
    PayloadRow.objects.create(**kept)
    assert outcome(send(task)) == (200, "")
    assert len(called) == 1
    PayloadRow.objects.all().delete()
    assert outcome(send(task, delivery={"is_last_attempt": True})) == (200, "dead")
    assert "not in the state" in letters()[0].error


def test_a_state_that_is_away_has_the_call_come_again(narrow, memory_backend, monkeypatch, called):
    def fail(*_):
        raise DatabaseError("gone")

    defer(note, LARGE)
    monkeypatch.setattr(DjangoState, "get_payload", fail)
    assert outcome(send(queued(memory_backend))) == (500, "")
    assert (letters(), called) == ([], [])


def test_atomic_requests_are_honoured(memory_backend, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(functions, "broken", True)
    defer(functions.write_and_fail_if_broken, 7)
    assert outcome(send(queued(memory_backend))) == (500, "")
    assert Row.objects.count() == 0


# The signature


def test_a_signature_by_a_key_that_was_is_good_while_that_is_kept(memory_backend, settings, called):
    defer(note, 1)
    task = queued(memory_backend)
    old, settings.SECRET_KEY = settings.SECRET_KEY, "another" * 10
    settings.SECRET_KEY_FALLBACKS = ["a third" * 10, old]
    assert outcome(send(task)) == (200, "")
    settings.SECRET_KEY_FALLBACKS = []
    assert outcome(send(task)) == (200, "dead")
    assert "SECRET_KEY_FALLBACKS" in letters()[0].error
    assert len(called) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda body: {**body, "signature": ""},
        lambda body: {**body, "signature": body["signature"][:-1]},
        lambda body: {**body, "signature": body["signature"] + "0"},
        lambda body: {**body, "signature": body["signature"].upper()},
        lambda body: {**body, "signature": " " + body["signature"]},
        lambda body: {**body, "signature": "é" * 64},
        lambda body: {**body, "signature": "0" * 64},
        lambda body: {name: value for name, value in body.items() if name != "signature"},
        lambda body: {**body, "payload": body["payload"].replace("[1]", "[2]")},
        lambda body: {**body, "payload": body["payload"] + " "},
        lambda body: {**body, "payload": body["payload"].replace("note", "two")},
    ],
)
def test_a_call_that_we_did_not_sign_is_never_made(called, change):
    assert outcome(post(change(write()))) == (200, "dead")
    assert called == []
    [letter] = letters()
    assert "signature" in letter.error or "fields" in letter.error


def test_signatures_are_compared_in_constant_time(called, monkeypatch):
    compared = []
    monkeypatch.setattr(calls, "constant_time_compare", lambda ours, theirs: compared.append(theirs) or True)
    assert outcome(post({**write(), "signature": "x"})) == (200, "")
    assert compared == ["x"]


# Access


@pytest.mark.parametrize(
    "environ", [{}, {"HTTP_X_APPENGINE_QUEUENAME": "default"}, {"HTTP_X_CLOUDTASKS_QUEUENAME": "q"}]
)
def test_outsiders_are_refused(called, environ, client):
    assert outcome(post(write(), proven=False, **environ)) == (403, "")
    User.objects.create_superuser("root", password="x")
    client.login(username="root", password="x")
    assert client.post(URL, write()).status_code == 403
    assert client.get(URL).status_code == 405
    assert (called, letters()) == ([], [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_only_post_is_a_call(called, method):
    response = Client().generic(method, URL, **{DELIVERY_KEY: Delivery(queue="default", name="made")})
    assert response.status_code == 405
    assert called == []


def test_what_is_said_of_a_call_is_in_the_form(memory_backend):
    defer(Point(1).note, "x")
    body = form(queued(memory_backend))
    assert body["function"] == "tests.specimen.functions.Point.note"
    assert quote_plus(body["signature"]) == body["signature"]
    assert json.loads(body["payload"])["version"] == 1
