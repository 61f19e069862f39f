"""A worker that calls a real server by HTTP: tasks and iterations from end to end."""

from __future__ import annotations

import itertools
import types

import pytest
from django.urls import path

from soc_tasks import FatalTaskError, Iteration, RetryOptions, iterative_task, repeatTask, startTask, task
from soc_tasks.backends import get_backend
from soc_tasks.engine import hooks
from soc_tasks.engine.http import HttpDispatcher
from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from soc_tasks.state import get_state
from tests.live import serve

QUICK = RetryOptions(max_attempts=5, min_backoff=0, max_backoff=0)
ITEMS = list(range(95))
seen = []


class Numbers:
    """A logic without a database."""

    def getBatchOfData(self, filter=None, start_key=None, batch_size=None):
        start = int(start_key or 0)
        end = start + (batch_size or 10)
        return ITEMS[start:end], str(end) if end < len(ITEMS) else None


@task
def plain(request, slug):
    seen.append((slug, request.task, request.headers))


@task
def stumble(request):
    seen.append(request.task)
    if request.task.retry_count == 0:
        return repeatTask(countdown=0)
    if request.task.retry_count == 1:
        raise ValueError("again")
    return None


@task
def fail(request):
    raise FatalTaskError("never")


@iterative_task(Numbers(), batch_size=10, time_limit=1e-9)
def slices(request, entities, context):
    seen.append((list(entities), request.task.step))
    context["sum"] = context.get("sum", 0) + sum(entities)


@pytest.fixture
def site(settings, file_database, monkeypatch):
    """Serve the tasks above by HTTP, and have the worker call them there."""
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [
        path("plain/<str:slug>/", plain, name="plain"),
        path("stumble/", stumble, name="stumble"),
        path("fail/", fail, name="fail"),
        path("slices/", slices, name="slices"),
    ]
    settings.ROOT_URLCONF = conf
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    seen.clear()
    with serve() as server:
        settings.SOC_TASKS = {**settings.SOC_TASKS, "DISPATCH": "http", "URL": server.url}
        # What the backend registers looks for outboxes in the databases of other tests.
        get_backend()
        monkeypatch.setattr(hooks, "_upkeep", [])
        monkeypatch.setattr(hooks, "_sweeps", [])
        yield server


def work():
    return Worker(threads=4).run_until_empty()


def test_a_task(site):
    handle = startTask(
        "plain",
        {"n": 5, "t": "ü"},
        url_args=["ä b"],
        headers={"X-Mine": "y"},
        dispatch_deadline=20,
        retry_options=QUICK,
    )
    assert work() == 1
    [(slug, info, headers)] = seen
    assert (slug, info.context, info.name, info.queue) == ("ä b", {"n": 5, "t": "ü"}, handle.name, "default")
    assert (info.retry_count, info.previous_status, info.is_last_attempt) == (0, None, False)
    assert 0 < info.time_left().total_seconds() <= 20
    assert (headers["X-Mine"], headers["User-Agent"]) == ("y", "soc_tasks")
    assert get_store("engine_database").list_tasks() == []


def test_attempts_are_counted_as_in_process(site):
    startTask("stumble", retry_options=RetryOptions(max_attempts=3, min_backoff=0, max_backoff=0))
    assert work() == 3
    told = [(i.retry_count, i.execution_count, i.previous_status, i.is_last_attempt) for i in seen]
    assert told == [(0, 0, None, False), (1, 1, 500, False), (2, 2, 500, True)]


def test_a_fatal_error_is_a_dead_letter_of_the_site(site):
    startTask("fail")
    assert work() == 1
    [letter] = get_state().list_dead_letters()
    assert (letter.task.path, letter.error) == ("/fail/", "never")


def test_an_iteration(site):
    handle = startTask("slices", {"sum": 0}, dispatch_deadline=60)
    work()
    assert [item for items, _ in seen for item in items] == ITEMS
    assert [step for _, step in seen] == list(range(10))
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done) == ("succeeded", len(ITEMS))


def test_many_tasks_share_few_connections(site):
    for number in range(60):
        startTask("plain", url_args=[str(number)])
    work()
    assert sorted(int(slug) for slug, _, _ in seen) == list(range(60))
    assert len(site.sockets) <= 4


def test_keys_change_while_tasks_run(site, settings):
    """What was signed with the old key comes to a site that signs with the new one and still knows the old."""
    old, application = settings.SECRET_KEY, site.application
    numbers = itertools.count(1)

    def change_the_key(environ, start_response):
        if next(numbers) == 10:
            settings.SECRET_KEY_FALLBACKS = [old]
            settings.SECRET_KEY = "new"
        return application(environ, start_response)

    site.application = change_the_key
    for number in range(40):
        startTask("plain", url_args=[str(number)], retry_options=RetryOptions(max_attempts=1))
    work()
    assert len(seen) == 40
    assert settings.SECRET_KEY == "new"


def test_a_worker_with_another_key_gets_nowhere(site, settings, caplog):
    """The site's process has dropped the key that the worker signs with: refused, and tried again later."""
    startTask("plain", url_args=["x"], retry_options=RetryOptions(max_attempts=2, min_backoff=0, max_backoff=0))
    application = site.application

    def have_another_key(environ, start_response):
        right, settings.SECRET_KEY = settings.SECRET_KEY, "another"
        try:
            return application(environ, start_response)
        finally:
            settings.SECRET_KEY = right

    site.application = have_another_key
    assert work() == 2
    assert seen == []
    assert "it answered 403: are SECRET_KEY" in caplog.text


def test_a_site_that_was_away_is_told_so(site):
    startTask("plain", url_args=["x"], retry_options=QUICK)
    dispatchers = [HttpDispatcher("http://127.0.0.1:1", {}), HttpDispatcher(site.url, {})]
    worker = Worker(threads=1, dispatch=lambda *call: dispatchers.pop(0)(*call))  # noqa: PLW0108
    assert worker.run_until_empty() == 2
    [(_, info, _)] = seen
    assert (info.retry_count, info.previous_status) == (1, 502)
