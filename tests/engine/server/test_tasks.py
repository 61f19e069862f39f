"""Tasks: their views, lists, times, attempts; run now; rates; and that a site's tasks and the server's do not meet."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions
from google.cloud.tasks_v2 import Task
from google.protobuf import json_format

from soc_tasks.engine import hooks
from soc_tasks.engine.server.names import make_id, was_made
from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer
from tests.databases import on_every_database
from tests.engine.running import until
from tests.engine.server.conftest import PARENT
from tests.engine.server.test_end_to_end import is_gone
from tests.engine.tasks import make_task

LATER = {"min_backoff": "60s", "max_backoff": "60s"}


def show(task):
    return json_format.MessageToDict(Task.pb(task))


@pytest.fixture
def paused(client, queue):
    """A queue that is paused."""
    client.pause_queue(name=queue)
    return queue


def test_views(client, paused):
    soon = datetime(2000, 1, 1, 0, 0, 0, 123456, tzinfo=UTC).replace(year=datetime.now(UTC).year + 1, month=1, day=1)
    soon = min(soon, datetime.now(UTC).replace(microsecond=123456) + timedelta(days=3))
    name = f"{paused}/tasks/a"
    given = {"name": name, "http_request": {"url": "http://a/", "body": b"x"}, "schedule_time": soon}
    made = client.create_task(parent=paused, task=given)
    expected = {
        "name": name,
        "httpRequest": {"url": "http://a/", "httpMethod": "POST", "headers": {"User-Agent": "Google-Cloud-Tasks"}},
        "scheduleTime": soon.isoformat().replace("+00:00", "Z"),
        "createTime": show(made)["createTime"],
        "dispatchDeadline": "600s",
        "view": "BASIC",
    }
    assert show(made) == expected
    assert "." not in expected["createTime"]
    assert show(client.get_task(name=name)) == expected
    full = client.get_task(request={"name": name, "response_view": "FULL"})
    assert show(full) == {**expected, "view": "FULL", "httpRequest": {**expected["httpRequest"], "body": "eA=="}}
    [listed] = client.list_tasks(request={"parent": paused, "response_view": "FULL"})
    assert show(listed) == show(full)


def test_what_was_made_is_what_is_kept(client, paused):
    """To the microsecond, also where no time was given; and whatever else there is to a task."""
    for given in (
        {"http_request": {"url": "https://a/", "oidc_token": {"service_account_email": "a@b", "audience": "c"}}},
        {"app_engine_http_request": {"http_method": "GET", "app_engine_routing": {"instance": "i", "service": "s"}}},
        {"app_engine_http_request": {"relative_uri": "/a?b"}, "dispatch_deadline": "15.0015s"},
        {"http_request": {"url": "https://a/"}, "retry_config": {"max_attempts": 3, "min_backoff": "0s"}},
        {"http_request": {"url": "https://a/"}, "schedule_time": "2020-01-01T00:00:00Z", "retry_config": {}},
    ):
        made = client.create_task(request={"parent": paused, "task": given, "response_view": "FULL"})
        kept = client.get_task(request={"name": made.name, "response_view": "FULL"})
        assert show(kept) == show(made)


@on_every_database
def test_lists_page_by_page(client, paused):
    made = [client.create_task(parent=paused, task={"http_request": {"url": "http://a/"}}).name for _ in range(5)]
    pages = list(client.list_tasks(request={"parent": paused, "page_size": 2}).pages)
    assert [len(page.tasks) for page in pages] == [2, 2, 1]
    assert sorted(task.name for page in pages for task in page.tasks) == sorted(made)
    with pytest.raises(exceptions.InvalidArgument, match="another list"):
        client.list_queues(request={"parent": PARENT, "page_token": pages[0].next_page_token})


def test_a_page_ends_before_it_is_too_large_for_clients(client, paused):
    for _ in range(3):
        client.create_task(parent=paused, task={"http_request": {"url": "http://a/", "body": b"x" * 1_000_000}})
    pages = list(client.list_tasks(request={"parent": paused, "response_view": "FULL"}).pages)
    assert [len(page.tasks) for page in pages] == [2, 1]
    assert [len(page.tasks) for page in client.list_tasks(request={"parent": paused}).pages] == [3]


def test_attempts_are_told(client, target, queue):
    target.answers = ["404 No"]
    task = client.create_task(parent=queue, task={"http_request": {"url": target.url}, "retry_config": LATER})
    target.take()
    until(lambda: client.get_task(name=task.name).response_count == 1)
    shown = client.get_task(name=task.name)
    last = shown.last_attempt
    assert shown.dispatch_count == 1
    assert shown.first_attempt.dispatch_time == last.dispatch_time
    assert not shown.first_attempt.response_time
    assert task.schedule_time == last.schedule_time <= last.dispatch_time <= last.response_time
    assert (last.response_status.code, last.response_status.message) == (5, "NOT_FOUND(5): HTTP status code 404")
    # From the time of the failure.
    assert timedelta(seconds=60) <= shown.schedule_time - last.response_time < timedelta(seconds=62)


def test_an_attempt_under_way_is_shown_and_can_be_deleted(client, target, queue):
    target.hold = threading.Event()
    name = f"{queue}/tasks/a"
    client.create_task(parent=queue, task={"name": name, "http_request": {"url": target.url}})
    target.take()
    shown = client.get_task(name=name)
    assert (shown.dispatch_count, shown.response_count) == (1, 0)
    assert shown.last_attempt.dispatch_time
    assert not shown.last_attempt.response_time
    assert [task.name for task in client.list_tasks(parent=queue)] == [name]
    client.delete_task(name=name)
    target.hold.set()
    assert is_gone(client, name)
    with pytest.raises(exceptions.NotFound, match="The task no longer exists"):
        client.delete_task(name=name)


@on_every_database
def test_run_now_passes_pause_and_schedule(client, target, paused):
    soon = datetime.now(UTC) + timedelta(hours=1)
    target.answers = ["500 No", "200 OK"]
    given = {"http_request": {"url": target.url}, "schedule_time": soon, "retry_config": LATER}
    task = client.create_task(parent=paused, task=given)
    target.hold = threading.Event()
    called = datetime.now(UTC)
    shown = client.run_task(name=task.name)
    # As it is while its target has not answered.
    assert (shown.dispatch_count, shown.response_count) == (1, 0)
    assert shown.last_attempt.dispatch_time >= shown.schedule_time >= called
    target.hold.set()
    target.take()
    until(lambda: client.get_task(name=task.name).response_count == 1)
    # From the time of the call.
    failed = client.get_task(name=task.name)
    assert timedelta(seconds=60) <= failed.schedule_time - called < timedelta(seconds=61)
    client.run_task(name=task.name)
    target.take()
    until(lambda: is_gone(client, task.name))
    with pytest.raises(exceptions.NotFound):
        client.run_task(name=task.name)


def test_rates(client, target):
    name = f"{PARENT}/queues/slow"
    limits = {"max_dispatches_per_second": 0.001}
    client.create_queue(parent=PARENT, queue={"name": name, "rate_limits": limits})
    client.pause_queue(name=name)
    for _ in range(13):
        client.create_task(parent=name, task={"http_request": {"url": target.url}})
    client.resume_queue(name=name)
    # A burst of ten, and then nothing for a long time.
    for _ in range(10):
        target.take()
    until(lambda: len(list(client.list_tasks(parent=name))) == 3)
    assert not any(task.dispatch_count for task in client.list_tasks(parent=name))
    # Rates that are changed hold at once.
    client.update_queue(queue={"name": name})
    for _ in range(3):
        target.take()


def test_concurrency(client, target):
    name = f"{PARENT}/queues/narrow"
    client.create_queue(parent=PARENT, queue={"name": name, "rate_limits": {"max_concurrent_dispatches": 1}})
    target.hold = threading.Event()
    tasks = [client.create_task(parent=name, task={"http_request": {"url": target.url}}).name for _ in range(3)]
    target.take()
    counts = [client.get_task(name=task).dispatch_count for task in tasks]
    assert sorted(counts) == [0, 0, 1]
    target.hold.set()
    target.take()
    target.take()


# Beside a site on the same database.


def test_a_sites_worker_leaves_the_servers_tasks(client, server, paused, file_database):
    get_store(file_database).add([make_task("/mine", name="mine")])
    client.create_task(parent=paused, task={"http_request": {"url": "http://127.0.0.1:9/"}})
    server.store.set_paused("demo/here/quick", False)
    seen = []

    def dispatch(task, delivery):
        seen.append(task.name)
        return Answer(status=200)

    Worker(file_database, dispatch=dispatch).run_until_empty()
    assert seen == ["mine"]


def test_a_server_leaves_the_sites_tasks_and_tells_nobody_of_its_own(client, target, queue, file_database, monkeypatch):
    told = []
    monkeypatch.setattr(hooks, "_exhausted", [lambda *given: told.append(given)])
    get_store(file_database).add([make_task("/mine", name="mine")])
    target.answers = ["500 No"]
    task = client.create_task(
        parent=queue, task={"http_request": {"url": target.url}, "retry_config": {"max_attempts": 1}}
    )
    until(lambda: is_gone(client, task.name))
    assert told == []
    assert [record.state for record in get_store(file_database).list_tasks("default")] == ["waiting"]


def test_chosen_ids():
    now, day = 1_800_000_000_000_000, 86400
    for _ in range(100):
        made = make_id("demo/here/quick", now)
        assert made.isdecimal()
        assert was_made("demo/here/quick", made, now + 3600 * 10**6, day)
        assert not was_made("demo/here/quick", made, now + 2 * day * 10**6, day)
    assert sum(was_made("demo/here/other", make_id("demo/here/quick", now), now, day) for _ in range(1000)) < 10
    assert not was_made("demo/here/quick", "1" * 400, now, day)
    assert not was_made("demo/here/quick", "12345", now, day)
