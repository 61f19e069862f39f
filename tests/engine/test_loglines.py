"""One line for each attempt, whatever view it had, and whether it answered or not."""

from __future__ import annotations

import logging
import re
import types
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.urls import include, path

from soc_tasks import FatalTaskError, task
from soc_tasks.engine.processes import born, this_host
from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from soc_tasks.logic.calls import Call, write_call
from soc_tasks.logic.envelopes import seal
from soc_tasks.meta import Meta
from soc_tasks.values import META_HEADER, RetryOptions
from tests.engine import views
from tests.engine.tasks import make_task, rolled_back
from tests.specimen import functions

SECRET = "sentinel-4711"
ONCE = RetryOptions(max_attempts=1)


@task
def decorated(request):
    return None


@task
def fatal(request):
    raise FatalTaskError("no use")


@pytest.fixture
def store(file_database):
    return get_store(file_database)


@pytest.fixture
def lines(caplog):
    """Run tasks, and give the facts of the lines."""
    caplog.set_level(logging.INFO, logger="soc_tasks")

    def read():
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in caplog.messages if line.startswith("task queue=")]

    return read


@pytest.fixture
def site_with_tasks(settings):
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [
        path("decorated", decorated),
        path("fatal", fatal),
        path("_tasks/", include("soc_tasks.urls")),
        path("", include("tests.engine.urls")),
    ]
    settings.ROOT_URLCONF = conf


@pytest.mark.parametrize(
    ("url", "attempts", "outcome", "status", "error"),
    [
        ("/noop", 100, "done", "200", None),
        ("/decorated", 100, "done", "200", None),
        ("/answer/503", 1, "dead", "503", None),
        ("/answer/404", 1, "dead", "404", None),
        ("/crash", 1, "dead", "500", "RuntimeError"),
        ("/leave", 1, "dead", "500", "SystemExit"),
        ("/nowhere", 1, "unknown", "404", None),
        ("/fatal", 100, "dead", "200", "FatalTaskError"),
    ],
)
def test_each_attempt_has_one_line(store, lines, site_with_tasks, url, attempts, outcome, status, error):
    headers = {"Content-Type": "application/x-www-form-urlencoded", META_HEADER: Meta(start_id="1" * 32).to_header()}
    body, retry = f"a={SECRET}".encode(), RetryOptions(max_attempts=attempts)
    store.add([make_task(f"{url}?token={SECRET}", body=body, headers=headers, retry=retry)])
    Worker(store.alias, threads=1).run_until_empty()
    [line] = lines()
    assert (line["queue"], line["path"], line["attempt"]) == ("default", url, "1")
    assert (line["outcome"], line["status"], line.get("error")) == (outcome, status, error)
    assert float(line["ms"]) >= 0
    assert SECRET not in str(line)


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("function", "outcome", "error"), [(functions.note, "done", None), (functions.refuse, "dead", "FatalTaskError")]
)
def test_the_line_of_a_deferred_call_names_the_function(
    store, lines, site_with_tasks, called, function, outcome, error
):
    name = f"tests.specimen.functions.{function.__name__}"
    context, _ = seal(write_call(Call(function=function, args=(SECRET,), kwargs={})), name)
    headers = {"Content-Type": FORM, META_HEADER: Meta(start_id="1" * 32).to_header()}
    store.add([make_task("/_tasks/deferred/", body=urlencode(context).encode(), headers=headers)])
    Worker(store.alias, threads=1).run_until_empty()
    [line] = lines()
    assert (line["path"], line["outcome"], line.get("error")) == ("/_tasks/deferred/", outcome, error)
    assert line["function"] == name
    assert SECRET not in str(line)


def test_the_line_of_another_view_names_none_whatever_its_context_holds(store, lines, site_with_tasks):
    headers = {"Content-Type": FORM, META_HEADER: Meta(start_id="1" * 32).to_header()}
    store.add([make_task("/decorated", body=b"function=mine", headers=headers)])
    Worker(store.alias, threads=1).run_until_empty()
    [line] = lines()
    assert "function" not in line


@pytest.mark.parametrize(
    ("start_id", "header", "wanted"),
    [
        ("2" * 32, Meta(start_id="1" * 32).to_header(), "2" * 32),
        # It is its name.
        ("3" * 32, None, None),
        # It came by the API.
        ("", Meta(start_id="1" * 32).to_header(), "1" * 32),
        ("", "damaged", None),
        ("", None, None),
    ],
)
def test_a_task_is_known_by_its_start_across_queues_and_processes(store, lines, start_id, header, wanted):
    headers = {"Content-Type": FORM, **({} if header is None else {META_HEADER: header})}
    store.add([make_task("/noop", name="3" * 32, start_id=start_id, headers=headers)])
    Worker(store.alias, threads=1).run_until_empty()
    [line] = lines()
    assert line.get("start") == wanted


def test_retries_are_told_one_by_one(store, lines):
    store.add([make_task("/answer/500", retry=RetryOptions(max_attempts=3, min_backoff=0, max_backoff=0))])
    Worker(store.alias, threads=1).run_until_empty()
    assert [(line["attempt"], line["outcome"]) for line in lines()] == [("1", "retry"), ("2", "retry"), ("3", "dead")]


def test_the_wait_counts_from_when_it_was_due(store, lines):
    store.add([make_task("/noop", eta=datetime.now(UTC) - timedelta(seconds=60), name="late")])
    Worker(store.alias, threads=1).run_until_empty()
    [line] = lines()
    # What is due in the past is due when it is queued.
    assert 0 <= float(line["wait_ms"]) < 30_000


def test_an_attempt_past_its_deadline_has_one_line_though_its_view_answers_later(store, lines, caplog):
    store.add([make_task("/wait", dispatch_deadline=0.05, retry=ONCE)])
    worker = Worker(store.alias, threads=1)
    worker.run_until_empty()
    views.let_go.set()
    worker._pool.close(5)
    [line] = lines()
    assert (line["outcome"], line["status"], line["error"]) == ("dead", "504", "TimedOut")
    assert [record.levelname for record in caplog.records if record.getMessage().startswith("task q")] == ["WARNING"]


def test_a_task_that_waited_for_too_long_has_a_line(store, lines):
    store.add([make_task("/noop", name="old", created=datetime.now(UTC) - timedelta(days=40), queue="default")])
    with store.writing() as cursor:
        cursor.execute("UPDATE soc_tasks_engine_task SET due = 1, created = 1")
    store.sweep(retention=86400)
    [line] = lines()
    assert (line["task"], line["outcome"], line["error"]) == ("old", "dead", "Expired")
    assert "status" not in line


def test_a_task_that_ends_its_process_has_a_line_each_time_it_ran_alone(store, lines):
    store.add([make_task("/noop", name="poison")])
    for _ in range(4):
        worker = store.join(this_host(), 1, born(1))
        if not store.exchange(worker, [], 1):
            assert store.claim_suspect(worker)
        [record] = [record for record in store.list_workers() if record.id == worker]
        store.reclaim(record, 60.0)
    assert [(line["outcome"], line["error"]) for line in lines()] == [
        ("retry", "ProcessDied"),
        ("retry", "ProcessDied"),
        ("dead", "ProcessDied"),
    ]


def test_what_a_rolled_back_transaction_gave_up_has_no_line(store, lines):
    store.add([make_task("/noop", name="poison")])
    worker = store.join(this_host(), 1, born(1))
    assert store.exchange(worker, [], 1)
    [record] = store.list_workers()
    store.reclaim(record, 60.0)
    worker = store.join(this_host(), 1, born(1))
    assert store.claim_suspect(worker)
    [record] = store.list_workers()
    with rolled_back(store.alias):
        assert store.reclaim(record, 60.0) == 1
    assert lines() == []


def test_a_log_that_breaks_does_not_take_a_thread_along(store, lines, capsys):
    class Broken(logging.Filter):
        def filter(self, record):
            raise RuntimeError("broken filter")

    broken = Broken()
    logging.getLogger("soc_tasks").addFilter(broken)
    try:
        store.add([make_task("/noop") for _ in range(3)])
        assert Worker(store.alias, threads=1).run_until_empty() == 3
    finally:
        logging.getLogger("soc_tasks").removeFilter(broken)
    assert capsys.readouterr().err.count("RuntimeError: broken filter") == 3


def test_headers_are_not_told(store, lines, caplog):
    store.add([make_task("/crash", headers={"X-Secret": SECRET, META_HEADER: ""}, retry=ONCE)])
    caplog.set_level(logging.DEBUG)
    Worker(store.alias, threads=1).run_until_empty()
    assert SECRET not in "".join(message for message in caplog.messages)
