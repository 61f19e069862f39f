"""The verbs of `manage.py tasks` on the queues of the embedded engine; those on what runs are in test_steering."""

from __future__ import annotations

import importlib
import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from soc_tasks.engine.store import get_store
from soc_tasks.management.commands.tasks import VERBS
from soc_tasks.management.verbs.tables import show_age
from soc_tasks.values import RetryOptions
from tests.engine.tasks import judged, make_task, names

pytestmark = pytest.mark.django_db


@pytest.fixture
def store(settings):
    settings.SOC_TASKS = {**getattr(settings, "SOC_TASKS", {}), "BACKEND": "embedded"}
    return get_store("default")


def tasks(*arguments, **options):
    out = StringIO()
    call_command("tasks", *arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def test_every_verb_is_a_module_with_the_three_parts():
    for path in VERBS.values():
        module = importlib.import_module(path)
        assert isinstance(module.help, str)
        assert callable(module.add_arguments)
        assert callable(module.handle)


def test_without_a_verb_the_verbs_are_named():
    with pytest.raises(CommandError, match="VERB"):
        tasks()
    with pytest.raises(CommandError, match="'run-now'"):
        tasks("fly")


def test_djangos_options_may_stand_behind_the_verb(store):
    assert tasks("list", "--verbosity", "2", "--no-color") == "No task waits or runs.\n"


def test_queues(store):
    store.add([make_task(), make_task()])
    store.add([make_task(queue="former")])
    store.set_paused("default", True)
    lines = tasks("queues").splitlines()
    assert lines[0].split() == ["queue", "state", "due", "scheduled", "running", "oldest"]
    assert lines[1].split()[:5] == ["default", "paused", "2", "0", "0"]
    assert "running, not configured" in lines[2]


def test_a_queue_that_gives_way_is_shown_as_such(store):
    store.add([make_task(), make_task()])
    (leased, _) = store.exchange(store.join("here", 1, 1), [], 2)
    store.exchange(leased.owner, [judged(store.clock, leased, 503)], 0)
    assert re.search(r"^default  running, at \d+/s for now ", tasks("queues"), re.MULTILINE)


def test_list(store):
    store.add([make_task("/count", name="one"), make_task("/noop", name="two", queue="other")])
    out = tasks("list")
    assert "one" in out
    assert "/noop" in out
    assert "two" not in tasks("list", "default")
    assert "(the first 1; more with --limit)" in tasks("list", "--limit", "1")
    with pytest.raises(CommandError, match="no queue 'nowhere'"):
        tasks("list", "nowhere")


def test_show(store):
    retry = RetryOptions(max_attempts=3)
    store.add([make_task(name="one", body=b"secret=1", retry=retry, dispatch_deadline=30)])
    out = tasks("show", "one")
    assert "state:" in out
    assert "30 s" in out
    assert "{'max_attempts': 3}" in out
    assert "header Content-Type:" in out
    assert "8 bytes" in out
    assert "secret" not in out
    assert "secret=1" in tasks("show", "one", "--body")
    with pytest.raises(CommandError, match="no task 'two' in queue 'default'"):
        tasks("show", "two")


def test_what_no_worker_knew_is_shown_as_such(store):
    store.add([make_task(name="new")])
    (leased,) = store.exchange(store.join("here", 1, 1), [], 1)
    assert "unknown" not in tasks("show", "new")
    store.exchange(leased.owner, [judged(store.clock, leased, 404, outcome="unknown")], 0)
    assert tasks("list").splitlines()[1].split()[1:3] == ["new", "unknown"]
    out = tasks("show", "new")
    assert "unknown since:" in out
    assert "a dead letter after a day" in out


def test_run_now_and_delete(store):
    store.set_paused("default", True)
    store.add([make_task(name="one")])
    assert "due now" in tasks("run-now", "one")
    assert store.next_due() == 0
    worker = store.join("here", 1, 1)
    store.exchange(worker, [], 1)
    with pytest.raises(CommandError, match="running already"):
        tasks("run-now", "one")
    assert "was deleted" in tasks("delete", "one")
    for verb in ("delete", "run-now"):
        with pytest.raises(CommandError, match="no task 'one'"):
            tasks(verb, "one", "--queue", "default")


def test_pause_and_resume(store):
    assert "is paused" in tasks("pause", "default")
    assert store.list_queues()[0].paused
    assert "runs" in tasks("resume", "default")
    assert not store.list_queues()[0].paused
    with pytest.raises(CommandError, match="no queue"):
        tasks("pause", "nowhere")


def test_a_queue_that_is_configured_no_more_can_still_be_emptied(store):
    store.add([make_task(queue="former")])
    assert tasks("purge", "former", "--no-input") == "1 tasks were deleted from queue former.\n"


def test_purge_asks(store, monkeypatch):
    store.add([make_task(), make_task()])
    questions = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or "n")
    with pytest.raises(CommandError, match="Nothing was deleted"):
        tasks("purge", "default")
    assert "all 2 tasks of queue default" in questions[0]
    monkeypatch.setattr("builtins.input", lambda question: "y")
    tasks("purge", "default")
    assert names(store.list_tasks()) == []

    def nobody(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", nobody)
    with pytest.raises(CommandError, match="--no-input"):
        tasks("purge", "default")


def test_another_backend_is_named(settings):
    settings.SOC_TASKS = {"BACKEND": "memory"}
    with pytest.raises(CommandError, match="is 'memory'"):
        tasks("run")
    with pytest.raises(CommandError, match="MemoryBackend cannot pause queues"):
        tasks("pause", "default")


def test_what_is_wrong_with_the_settings_is_told():
    with override_settings(SOC_TASKS={"DATABASE": "nowhere"}), pytest.raises(CommandError, match="no alias"):
        tasks("queues")


def test_missing_tables_are_told(store, monkeypatch):
    monkeypatch.setattr(type(store), "is_ready", lambda self: False)
    with pytest.raises(CommandError, match="migrate --database default"):
        tasks("run")


@pytest.mark.parametrize("arguments", [("--processes", "0"), ("--threads", "x"), ("--queue", "nowhere")])
def test_run_refuses_nonsense(store, arguments):
    with pytest.raises(CommandError):
        tasks("run", *arguments)


def test_ages():
    from datetime import UTC, datetime, timedelta

    now = datetime(2030, 1, 1, tzinfo=UTC)
    ages = [show_age(now, now - timedelta(seconds=seconds)) for seconds in (-1, 0.25, 119, 120, 7200, 172800)]
    assert ages == ["0.0 s", "0.2 s", "119.0 s", "2 m", "2 h", "2 d"]
    assert show_age(now, None) == "-"
