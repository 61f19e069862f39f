"""Which way a task is called, by the settings."""

from __future__ import annotations

import sys

import pytest

from soc_tasks import ConfigurationError, RetryOptions
from soc_tasks.engine.attempts import Job, make_attempt
from soc_tasks.engine.clock import SystemClock
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.engine.dispatchers import ServiceDispatcher, make_dispatcher
from soc_tasks.engine.http import HttpDispatcher
from soc_tasks.engine.store import get_store
from soc_tasks.engine.supervisor import Supervisor
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer, Delivery
from tests.engine import views
from tests.engine.tasks import make_task
from tests.live import script, serve

SITE = "http://site.example"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, InProcessDispatcher),
        ({"URL": SITE}, InProcessDispatcher),
        ({"DISPATCH": "in_process", "SERVICES": {}}, InProcessDispatcher),
        ({"SERVICES": {"mail": SITE}}, ServiceDispatcher),
        ({"DISPATCH": "http", "URL": SITE}, HttpDispatcher),
        ({"DISPATCH": "http", "URL": SITE, "SERVICES": {"mail": SITE}}, HttpDispatcher),
    ],
)
def test_what_the_settings_choose(settings, given, kind):
    settings.SOC_TASKS = given
    assert type(make_dispatcher()) is kind


def test_dispatch_by_http_loads_no_middleware(settings):
    settings.MIDDLEWARE = ["no.such.middleware"]
    settings.SOC_TASKS = {"DISPATCH": "http", "URL": SITE}
    make_dispatcher()


def test_by_http_without_a_url_says_so_at_the_start(settings):
    settings.SOC_TASKS = {"DISPATCH": "http"}
    with pytest.raises(ConfigurationError, match="URL"):
        make_dispatcher()
    with pytest.raises(ConfigurationError, match="URL"):
        Supervisor("default", processes=2, threads=1).run()


@pytest.mark.parametrize("given", [{"DISPATCH": "http", "URL": SITE}, {"SERVICES": {"mail": SITE}}])
def test_without_urllib3_it_says_what_to_install(settings, monkeypatch, given):
    settings.SOC_TASKS = given
    monkeypatch.delitem(sys.modules, "soc_tasks.engine.wire", raising=False)
    monkeypatch.setitem(sys.modules, "urllib3", None)
    with pytest.raises(ConfigurationError, match=r"pip install soc-tasks\[http\]"):
        make_dispatcher()


def test_in_process_nothing_of_it_is_needed(settings, monkeypatch):
    settings.SOC_TASKS = {}
    monkeypatch.setitem(sys.modules, "urllib3", None)
    make_dispatcher()


def test_services_go_by_http_and_the_rest_in_process(settings, db):
    def app(environ, start_response):
        start_response("204 x", [("Content-Length", "0")])
        return []

    with serve(app) as mail:
        settings.SOC_TASKS = {"SERVICES": {"mail": mail.url}}
        dispatch = make_dispatcher()
        delivery = Delivery(queue="default", name="n")
        assert dispatch(make_task("/count"), delivery).status == 200
        assert dispatch(make_task("/count", service="mail"), delivery).status == 204
        assert dispatch(make_task("/count", service="gone"), delivery).status == 502
        assert (len(views.seen), len(mail.environs)) == (1, 1)


def test_an_attempt_by_http_is_not_taken_for_hung_while_it_keeps_its_deadline(file_database):
    store = get_store(file_database)
    store.add([make_task(dispatch_deadline=5.0)])
    [leased] = store.exchange(store.join("here", 1, 1), [], 1)
    job, told = Job(leased), []

    def dispatch(task, delivery):
        told.append(delivery.deadline)
        return Answer(status=200)

    dispatch.patience = 1.0
    make_attempt(job, dispatch, SystemClock(), lambda: False)
    assert told == [job.began + 5.0]
    assert job.deadline == job.began + 6.0


def test_an_attempt_that_hangs_by_http_ends_without_its_process(settings, file_database, caplog):
    """Its socket keeps the deadline; in process the thread could not be stopped."""
    store = get_store(file_database)

    def hang(connection, number):
        while connection.recv(65536):
            continue

    with script(hang) as (url, count):
        settings.SOC_TASKS = {**settings.SOC_TASKS, "DISPATCH": "http", "URL": url}
        retry = RetryOptions(max_attempts=2, min_backoff=0, max_backoff=0)
        store.add([make_task(dispatch_deadline=0.2, retry=retry)])
        assert Worker(store.alias, threads=2, recycle=True).run_until_empty() == 2
        assert len(count) == 2
    assert "outlived its deadline" not in caplog.text
