"""The verbs failed, iterations, watch and relay of `manage.py tasks`."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from soc_tasks import FatalTaskError, Iteration, defer, startTask
from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.errors import QueueNotFoundError, TaskAlreadyExistsError
from soc_tasks.models import IterationRow, PayloadRow, ShardRow
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour
from tests import site
from tests.specimen import functions
from tests.specimen.models import Row
from tests.views.calls import route
from tests.views.failing import View

# The relay looks at the outboxes of all of them.
pytestmark = pytest.mark.django_db(databases=["default", "other"])


def tasks(*arguments):
    out = StringIO()
    call_command("tasks", *arguments, stdout=out, no_color=True)
    return out.getvalue()


@pytest.fixture
def letters(task_queues):
    def fail(request, slug, **_):
        raise FatalTaskError(f"broken {slug}")

    site.behaviours["behave"] = fail
    for slug in ("one", "two"):
        startTask("behave_slug", {"k": "v"}, url_kwargs={"slug": slug})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    return {letter.error.split()[-1]: letter.id for letter in get_state().list_dead_letters()}


@pytest.fixture
def iteration(paused_iteration):
    """An iteration over 25 rows that waits, its start delivered, its first slice not."""
    return paused_iteration


def test_failed_lists_newest_first(letters):
    lines = tasks("failed").splitlines()
    assert [line.split()[0] for line in lines] == [str(letters["two"]), str(letters["one"])]
    assert "FatalTaskError: broken two" in lines[0]
    assert "/tasks/behave/two/" in lines[0]
    assert "Traceback" not in tasks("failed")
    assert "Traceback" in tasks("failed", str(letters["one"]), "--full")


def test_failed_retry_runs_a_letter_again(letters, task_queues, site_calls):
    site.behaviours.clear()
    before = site_calls[0][1].task.start_id
    assert "queued in default" in tasks("failed", "--retry", str(letters["one"]))
    task_queues.process_task_queues()
    _, request, kwargs = site_calls[-1]
    assert (kwargs["slug"], request.task.context, request.task.start_id) == ("one", {"k": "v"}, before)
    assert [letter.id for letter in get_state().list_dead_letters()] == [letters["two"]]


def test_failed_discards_one_or_all(letters):
    tasks("failed", "--discard", str(letters["one"]))
    assert [letter.id for letter in get_state().list_dead_letters()] == [letters["two"]]
    tasks("failed", "--discard", "--queue", "other")
    assert len(get_state().list_dead_letters()) == 1
    tasks("failed", "--discard")
    assert tasks("failed") == "no dead letters\n"


def test_failed_finds_what_matches(letters, monkeypatch):
    monkeypatch.setattr("soc_tasks.logic.letters.PAGE", 1)
    for text, found in (("BROKEN one", ["one"]), ("behave/two", ["two"]), ("fatal", ["two", "one"]), ("none", [])):
        lines = tasks("failed", "--matching", text).splitlines() if found else []
        assert [line.split()[0] for line in lines] == [str(letters[name]) for name in found]
    assert tasks("failed", "--matching", "fatal", "--limit", "1").split()[0] == str(letters["two"])
    assert tasks("failed", "--matching", "one", "--discard") == "1 dead letters discarded\n"
    assert [letter.id for letter in get_state().list_dead_letters()] == [letters["two"]]


@pytest.mark.parametrize("action", ["--retry", "--discard"])
def test_failed_does_not_take_an_unset_variable_for_all(letters, action):
    with pytest.raises(CommandError, match="needs some text"):
        tasks("failed", "--matching", "", action)
    assert len(get_state().list_dead_letters()) == 2


def test_failed_names_functions_and_discards_their_arguments(task_queues):
    defer(functions.refuse, os.urandom(2_000_000).hex())
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert "tests.specimen.functions.refuse" in tasks("failed")
    assert PayloadRow.objects.exclude(data=b"").count() == 1
    assert tasks("failed", "--matching", "FUNCTIONS.refuse", "--discard") == "1 dead letters discarded\n"
    assert PayloadRow.objects.exclude(data=b"").count() == 0


def test_failed_says_which_id_is_unknown(letters):
    with pytest.raises(CommandError, match="no dead letter 999999"):
        tasks("failed", "--retry", "999999")


def test_retrying_the_letter_of_a_slice_resumes_its_iteration(task_queues, iteration):
    def fail(request, **_):
        raise FatalTaskError("broken")

    site.behaviours["iterate"] = fail
    iteration.resume()
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert iteration.refresh().status == "failed"
    site.behaviours.clear()
    assert "is running" in tasks("failed", "--retry")
    task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert iteration.done == 25
    assert get_state().list_dead_letters() == []


def test_iterations_are_listed_and_steered(iteration, task_queues):
    assert "paused" in tasks("iterations")
    assert "10 of 25" in tasks("iterations")
    assert "running" in tasks("iterations", "resume", iteration.id[-8:])
    assert "paused" in tasks("iterations", "pause", iteration.id)
    assert "cancelled" in tasks("iterations", "cancel", iteration.id)
    with pytest.raises(CommandError, match="No iteration has"):
        tasks("iterations", "pause", "nobody")
    with pytest.raises(CommandError, match="is cancelled; `resume` has no effect"):
        tasks("iterations", "resume", iteration.id)
    with pytest.raises(CommandError, match="Which one"):
        tasks("iterations", "pause")


def test_the_concurrency_of_an_iteration_is_set_and_shown(iteration):
    last = iteration.id[-8:]
    assert "at most 3 of 1 shards at a time, 0 parked" in tasks("iterations", "concurrency", last, "3")
    assert iteration.refresh().concurrency == 3
    assert "at most 3 of 1 shards" in tasks("iterations")
    assert "at most" not in tasks("iterations", "concurrency", last, "all")
    assert iteration.refresh().concurrency is None
    for wrong in ((), ("0",), ("-1",), ("x",), ("1", "2")):
        with pytest.raises(CommandError, match="How many shards"):
            tasks("iterations", "concurrency", last, *wrong)
    iteration.cancel()
    with pytest.raises(CommandError, match="is cancelled; `concurrency` has no effect"):
        tasks("iterations", "concurrency", last, "3")


@pytest.mark.requires("rich")
def test_watch_shows_what_is_parked(iteration):
    iteration.resume()
    iteration.set_concurrency(2)
    ShardRow.objects.update(status="parked")
    assert f"{iteration.id[-8:]} at most 2 of 1 shards at a time, 1 parked" in tasks("watch", "--once")


def test_failed_items_are_listed_and_tried_again(task_queues):
    rows = Row.objects.bulk_create(Row() for _ in range(20))
    view = View(rows[3:6], ValueError("on\npurpose"))
    iteration = view.run(task_queues)
    assert "17 of 20  3 failed" in tasks("iterations")
    lines = tasks("iterations", "failed", iteration.id[-8:]).splitlines()
    assert [line.split("  ")[1:] for line in lines] == [
        [f"specimen.Row {row.pk}", "ValueError: on purpose"] for row in rows[3:6]
    ]
    assert "and 2 more; --limit 3" in tasks("iterations", "failed", iteration.id, "--limit", "1")
    assert "Traceback" in tasks("iterations", "failed", iteration.id, "--full")
    [first, *_] = [json.loads(line) for line in tasks("iterations", "failed", iteration.id, "--json").splitlines()]
    assert (first["entity"], first["error"], first["attempts"]) == (f"specimen.Row {rows[3].pk}", "on\npurpose", 1)
    view.bad.remove(rows[3].pk)
    with route(view.view):
        assert "0 of 1  0/s" in tasks("iterations", "retry-failed", iteration.id, "--item", str(first["id"]))
        task_queues.process_task_queues()
        with pytest.raises(CommandError, match="not all of these"):
            tasks("iterations", "retry-failed", iteration.id, "--item", str(first["id"]))
        assert f"(retry of {iteration.id})" in tasks("iterations", "retry-failed", iteration.id)
        task_queues.process_task_queues()
        assert "given up 2 times" in tasks("iterations", "failed", iteration.id)
        view.bad.clear()
        tasks("iterations", "retry-failed", iteration.id)
        task_queues.process_task_queues()
    assert tasks("iterations", "failed", iteration.id) == "no failed items\n"
    assert tasks("iterations", "retry-failed", iteration.id) == "no failed items\n"


@pytest.mark.requires("rich")
def test_watch_draws_a_line_for_each_iteration(iteration):
    drawn = tasks("watch", "--once")
    assert iteration.id[-8:] in drawn
    assert "10/25" in drawn
    assert "paused" in drawn


@pytest.mark.requires("rich")
def test_watch_ends_when_all_have_ended(iteration, task_queues):
    iteration.cancel()
    assert "cancelled" in tasks("watch", "--until-done", "--interval", "0.001")


def test_relay_queues_a_stuck_shard_anew_and_only_once(iteration, task_queues):
    iteration.resume()
    task_queues.flush_task_queues()
    assert "0 stuck" in tasks("relay")
    long_ago = timezone.now() - timedelta(hours=1)
    ShardRow.objects.update(progressed_at=long_ago)
    assert "1 stuck" in tasks("relay")
    assert "0 stuck" in tasks("relay")
    task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert iteration.done == 25


@pytest.mark.parametrize("trouble", [TaskAlreadyExistsError, QueueNotFoundError])
def test_a_shard_that_cannot_be_queued_anew_does_not_hold_up_the_others(iteration, task_queues, monkeypatch, trouble):
    iteration.resume()
    other = startTask("rows")
    task_queues.process_task_queues()
    startTask("rows")
    ShardRow.objects.update(progressed_at=timezone.now() - timedelta(hours=1), status="running")
    IterationRow.objects.update(status="running")
    task_queues.flush_task_queues()
    submit = MemoryBackend.submit

    def refuse_one(self, tasks, using=None):
        if tasks[0].name.startswith(iteration.id):
            raise trouble
        submit(self, tasks, using)

    monkeypatch.setattr(MemoryBackend, "submit", refuse_one)
    assert "1 stuck" in tasks("relay")
    assert task_queues.get_task_count() == 1
    assert Iteration.get(other.iteration).status == "running"


def test_relay_leaves_failed_and_leased_shards(iteration, task_queues):
    iteration.resume()
    task_queues.flush_task_queues()
    long_ago = timezone.now() - timedelta(hours=1)
    ShardRow.objects.update(progressed_at=long_ago, owner="me", until=timezone.now() + timedelta(seconds=60))
    assert "0 stuck" in tasks("relay")
    ShardRow.objects.update(progressed_at=long_ago, owner="", until=None, status="failed")
    assert "0 stuck" in tasks("relay")
