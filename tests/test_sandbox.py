"""`soc_tasks.sandbox.sandbox`: a test's own Cloud Tasks, and a live server that it calls."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, suppress
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone

from soc_tasks import Iteration, startTask
from soc_tasks.conf import get_settings
from soc_tasks.errors import ConfigurationError, NotSupportedError
from soc_tasks.sandbox import sandbox
from tests import site
from tests.live import serve
from tests.specimen.models import Row

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def school(settings, live_server):
    """The URL of a site that is set to App Engine, as its settings are in production."""
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks", "SERVICES": {"mail": "https://mail.example.org"}}
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "school", "europe-west1"
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "rate_max_concurrent": 3}]
    return live_server.url


def test_tasks_and_iterations_run(school):
    rows = Row.objects.bulk_create(Row() for _ in range(25))
    seen = []
    site.behaviours["behave"] = lambda request, slug: seen.append(request.task.context["word"])
    site.behaviours["iterate"] = lambda request, entities: seen.extend(row.pk for row in entities)
    with sandbox(school) as cloud:
        startTask("behave", {"word": "ü"}, queue="mail")
        cloud.run_until_empty()
        assert seen == ["ü"]
        queue = cloud.client.get_queue(name="projects/school/locations/europe-west1/queues/mail")
        assert queue.rate_limits.max_concurrent_dispatches == 3
        handle = startTask("rows")
        cloud.run_until_empty()
        assert Iteration.get(handle.iteration).status == "succeeded"
        assert sorted(seen[1:]) == sorted(row.pk for row in rows)


def test_nobody_else_is_let_in_meanwhile(school):
    with sandbox(school):
        headers = {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "forged", "X-AppEngine-QueueName": "x"}
        for more in ({}, {"Authorization": "Bearer a.b.c"}):
            assert Client().post("/tasks/behave/", headers={**headers, **more}).status_code == 403
    assert site.calls == []


def test_paused_tasks_run_when_they_are_to(school):
    came = threading.Event()
    site.behaviours["behave"] = lambda request, slug: came.set()
    with sandbox(school, paused=True) as cloud:
        startTask("behave")
        assert len(cloud.list_tasks()) == 1
        cloud.run_until_empty()
        assert came.is_set()
        startTask("behave")
        assert [task.dispatch_count for task in cloud.list_tasks()] == [0]


def test_what_does_not_run_in_time_is_named(school):
    with sandbox(school) as cloud:
        startTask("behave", name="tomorrow", eta=timezone.now() + timedelta(days=1))
        with pytest.raises(TimeoutError, match="1 tasks are still there: default/tasks/tomorrow, 0 attempts"):
            cloud.run_until_empty(timeout=0)


def test_everything_is_as_before_afterwards(school, monkeypatch):
    monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9")
    before = get_settings(), list(django_settings.ALLOWED_HOSTS)
    with suppress(LookupError), sandbox(school) as cloud:
        assert os.environ["TASKS_EMULATOR_HOST"] == cloud.host
        assert get_settings().oidc_issuer == cloud.issuer
        assert get_settings().url == school
        raise LookupError
    assert os.environ["TASKS_EMULATOR_HOST"] == "127.0.0.1:9"
    assert (get_settings(), list(django_settings.ALLOWED_HOSTS)) == before


def test_other_services_are_those_that_are_named(school):
    with serve(lambda environ, start_response: start_response("200 OK", []) and []) as other:
        with sandbox(school, services={"mail": other.url}) as cloud:
            startTask("/deliver/", service="mail")
            cloud.run_until_empty()
        assert [environ["PATH_INFO"] for environ in other.environs] == ["/deliver/"]
    # What the settings name is somewhere in production.
    with sandbox(school), pytest.raises(NotSupportedError, match="'mail'"):
        startTask("/deliver/", service="mail")


def test_a_file_keeps_tasks(school, tmp_path):
    with sandbox(school, database=tmp_path / "tasks.db", paused=True):
        startTask("behave", name="kept")
    assert site.calls == []
    with sandbox(school, database=tmp_path / "tasks.db", paused=True) as cloud:
        assert [task.name.rpartition("/")[2] for task in cloud.list_tasks()] == ["kept"]
        cloud.run_until_empty()
    assert len(site.calls) == 1


def test_a_server_that_cannot_start_is_told(school, tmp_path):
    path = tmp_path / "nowhere" / "tasks.db"
    with pytest.raises(ConfigurationError, match=r"The server ended by itself(.|\n)*unable to open"):
        ExitStack().enter_context(sandbox(school, database=path))
