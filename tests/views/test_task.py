"""`@task`: every outcome, and what a view sees."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django import VERSION
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpResponse
from django.utils.log import AdminEmailHandler

from soc_tasks import (
    FatalTaskError,
    PermanentTaskFailure,
    RetryOptions,
    SingularTaskFailure,
    repeatTask,
    startTask,
    task,
    terminateTask,
)
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests import site
from tests.specimen.models import Tag

pytestmark = pytest.mark.django_db


def raising(error):
    def behaviour(request, **_):
        raise error

    return behaviour


@pytest.mark.parametrize("answer", [None, terminateTask(), HttpResponse(status=204)])
def test_a_task_that_answers_ok_leaves_its_queue(task_queues, site_calls, answer):
    site.behaviours["behave"] = lambda request, **_: answer
    startTask("behave")
    task_queues.assertNumTasksEquals(1)
    task_queues.process_task_queues()
    task_queues.assertNumTasksEquals(0)
    assert len(site_calls) == 1


def test_the_context_arrives_as_form_data_and_with_its_types(task_queues, site_calls):
    context = {
        "plain": "a b&c=ü",
        "empty": "",
        "list": ["a", "b"],
        "one": ["a"],
        "none": [],
        "number": 7,
        "truth": True,
        "nothing": None,
        "price": Decimal("12.30"),
        "day": date(2026, 1, 2),
        "moment": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "span": timedelta(days=1, microseconds=3),
        "id": UUID(int=5),
        "nested": {"filter": [1, (2, "x")], "__soc__": "mine"},
    }
    startTask("behave", context)
    task_queues.process_task_queues()
    [(_, request, _)] = site_calls
    assert request.task.context == context
    assert request.POST["plain"] == "a b&c=ü"
    assert request.POST.getlist("list") == ["a", "b"]
    assert request.POST["number"] == "7"
    assert set(request.POST) == set(context)


def test_url_arguments_and_query_string_reach_the_view(task_queues, site_calls):
    startTask("behave_slug", url_kwargs={"slug": "gsoc"})
    startTask("/tasks/behave/next/?page=2")
    startTask(site.behave, url_args=["third"])
    task_queues.process_task_queues()
    assert [kwargs["slug"] for _, _, kwargs in site_calls] == ["gsoc", "next", "third"]
    assert site_calls[1][1].GET["page"] == "2"


@pytest.mark.parametrize("name", ["bound", "decorated"])
def test_bound_methods_are_tasks(task_queues, site_calls, name):
    startTask(name, url_kwargs={"slug": "x"})
    task_queues.process_task_queues()
    [(_, _, kwargs)] = site_calls
    assert kwargs == {"slug": "x", "self": site.methods}


@pytest.mark.parametrize(
    "error", [FatalTaskError("no"), PermanentTaskFailure("no"), Http404("no"), PermissionDenied("no")]
)
def test_fatal_errors_end_the_task_and_keep_a_dead_letter(task_queues, site_calls, error, caplog):
    site.behaviours["behave"] = raising(error)
    startTask("behave", {"a": "b"})
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.original_exception is error
    assert caught.value.__cause__ is error
    assert caught.value.status_code == 200
    task_queues.assertNumTasksEquals(0)
    [letter] = get_state().list_dead_letters()
    assert letter.error == "no"
    assert letter.error_type.endswith(type(error).__name__)
    assert "raising" in letter.traceback or "behaviour" in letter.traceback
    assert letter.task.path == "/tasks/behave/"
    assert letter.task.body == b"a=b"
    assert any(record.levelno == logging.ERROR for record in caplog.records)


def test_fatal_on_names_further_exceptions(task_queues):
    site.behaviours["behave_picky"] = raising(KeyError("x"))
    startTask("behave_picky")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    [letter] = get_state().list_dead_letters()
    assert letter.attempts == 1


def test_other_exceptions_repeat_the_task_until_it_succeeds(task_queues, site_calls):
    def fail_twice(request, **_):
        if request.task.retry_count < 2:
            raise ValueError("not yet")

    site.behaviours["behave"] = fail_twice
    startTask("behave")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    infos = [request.task for _, request, _ in site_calls]
    assert [info.retry_count for info in infos] == [0, 1, 2]
    assert [info.previous_status for info in infos] == [None, 500, 500]
    assert len({info.start_id for info in infos}) == 1
    assert get_state().list_dead_letters() == []


def test_the_last_attempt_ends_in_a_dead_letter(task_queues, site_calls):
    site.behaviours["behave"] = raising(ValueError("never"))
    startTask("behave", retry_options=RetryOptions(max_attempts=4))
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert [request.task.is_last_attempt for _, request, _ in site_calls] == [False, False, False, True]
    [letter] = get_state().list_dead_letters()
    assert (letter.attempts, letter.error) == (4, "never")


def test_the_decorator_may_limit_attempts(task_queues, site_calls):
    site.behaviours["behave_picky"] = raising(ValueError("never"))
    startTask("behave_picky")
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert len(site_calls) == 3


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (raising(ValueError("x")), 500),
        (raising(SingularTaskFailure("x")), 408),
        (lambda request, **_: repeatTask(), 500),
        (lambda request, **_: HttpResponse("secret", status=404), 500),
        (lambda request, **_: HttpResponse(status=503), 500),
        (lambda request, **_: HttpResponse(status=302), 500),
        (lambda request, **_: "no response", 500),
    ],
)
def test_what_is_not_ok_is_tried_again(task_queues, behaviour, status):
    site.behaviours["behave"] = behaviour
    startTask("behave")
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.status_code == status
    assert get_state().list_dead_letters() == []


def test_a_singular_failure_makes_no_noise(task_queues, caplog):
    site.behaviours["behave"] = raising(SingularTaskFailure("x"))
    startTask("behave")
    with caplog.at_level(logging.INFO, "soc_tasks"), pytest.raises(TaskFailedError):
        task_queues.process_task_queues()
    ours = [record for record in caplog.records if record.name == "soc_tasks"]
    assert ours
    assert max(record.levelno for record in ours) == logging.INFO


def test_an_atomic_task_commits_with_its_receipt_and_runs_once(task_queues, site_calls, memory_backend):
    site.behaviours["behave_atomic"] = lambda request, **_: Tag.objects.create(name="made") and None
    startTask("behave_atomic")
    [original] = memory_backend.tasks_now()
    task_queues.process_task_queues()
    memory_backend.tasks.append(original)
    task_queues.process_task_queues()
    assert len(site_calls) == 1
    assert Tag.objects.count() == 1


@pytest.mark.parametrize("end", [raising(ValueError("x")), lambda request, **_: repeatTask()])
def test_an_atomic_task_that_fails_rolls_back_with_its_receipt(task_queues, site_calls, end):
    def behaviour(request, **_):
        Tag.objects.create(name="made")
        return end(request) if request.task.retry_count == 0 else None

    site.behaviours["behave_atomic"] = behaviour
    startTask("behave_atomic")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert len(site_calls) == 2
    assert Tag.objects.count() == 1


@pytest.mark.parametrize(
    "end", [raising(ValueError("x")), raising(FatalTaskError("x")), lambda request, **_: repeatTask()]
)
def test_atomic_requests_roll_back_a_failed_attempt_but_not_its_dead_letter(task_queues, monkeypatch, end):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)

    def behaviour(request, **_):
        assert connection.in_atomic_block
        Tag.objects.create(name="half")
        return end(request)

    site.behaviours["behave"] = behaviour
    startTask("behave", retry_options=RetryOptions(max_attempts=1))
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues()
    assert Tag.objects.count() == 0
    assert len(get_state().list_dead_letters()) == 1


def test_async_views_are_refused_at_decoration():
    async def view(request):
        return None

    with pytest.raises(TypeError, match="async"):
        task(view)


def test_repeat_task_refuses_a_bad_countdown():
    for bad in (-1, float("nan"), "5", True):
        with pytest.raises(ValueError, match="countdown"):
            repeatTask(bad)
    assert repeatTask().status_code == 500
    assert repeatTask(5).status_code == 500
    assert terminateTask().status_code == 200


def test_a_failed_attempt_is_no_error_of_the_site_that_admins_are_mailed(task_queues, settings, mailoutbox):
    settings.ADMINS = [("Admin", "admin@example.org")] if VERSION < (6, 0) else ["admin@example.org"]
    site.behaviours["behave"] = raising(ValueError("x"))
    startTask("behave", retry_options=RetryOptions(max_attempts=3))
    handler = AdminEmailHandler()
    logging.getLogger("django.request").addHandler(handler)
    try:
        with pytest.raises(TaskFailedError):
            task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    finally:
        logging.getLogger("django.request").removeHandler(handler)
    assert mailoutbox == []


def test_the_headers_of_the_service_are_there(task_queues, site_calls):
    site.behaviours["behave"] = lambda request, **_: None if request.task.retry_count else repeatTask()
    handle = startTask("behave")
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    first, second = (request.headers for _, request, _ in site_calls)
    assert first["X-CloudTasks-QueueName"] == "default"
    assert first["X-CloudTasks-TaskName"] == handle.name
    assert float(first["X-CloudTasks-TaskETA"]) > 0
    assert "X-CloudTasks-TaskPreviousResponse" not in first
    assert (first["X-CloudTasks-TaskRetryCount"], second["X-CloudTasks-TaskRetryCount"]) == ("0", "1")
    assert second["X-CloudTasks-TaskPreviousResponse"] == "500"


@pytest.mark.parametrize("name", ["for_cron", "for_staff"])
def test_a_task_that_would_never_let_the_queue_in_is_refused(task_queues, name):
    with pytest.raises(ValueError, match="does not let the queue in"):
        startTask(name)
    task_queues.assertNumTasksEquals(0)


def test_a_view_that_exits_fails_its_attempt_and_nothing_else(task_queues):
    site.behaviours["behave"] = lambda request, **_: sys.exit(3)
    startTask("behave")
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.status_code == 500
    assert "sys.exit" in str(caught.value.original_exception)
