"""`--json` of the verbs: one object a line, times with a T; and readers that go away."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from soc_tasks import FatalTaskError, Iteration
from soc_tasks.engine.store import get_store
from soc_tasks.management.commands.tasks import BROKEN, VERBS, Command
from soc_tasks.management.verbs.iterations import shorten
from soc_tasks.models import IterationRow, ShardRow
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour
from tests import site
from tests.contracts.state_records import make_letter
from tests.engine.tasks import make_task

pytestmark = pytest.mark.django_db(databases=["default", "other"])

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def store(settings):
    settings.SOC_TASKS = {"BACKEND": "embedded"}
    return get_store("default")


def ask(*arguments):
    """Return the objects that a verb prints."""
    out = io.StringIO()
    call_command("tasks", *arguments, "--json", stdout=out, no_color=True)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_verb_that_tells_something_has_it():
    parser = Command().create_parser("manage.py", "tasks")
    for verb in set(VERBS) - {"run", "serve", "sandbox"}:
        [verbs] = [action for action in parser._actions if action.dest == "verb"]
        assert "--json" in verbs.choices[verb]._option_string_actions, verb


class TestQueuesAndTasks:
    def test_list_and_show(self, store):
        store.add([make_task("/count?a=1", name="one", body=b"secret=1", headers={"X-A": "b"})])
        [listed] = ask("list")
        assert (listed["queue"], listed["name"], listed["state"], listed["path"]) == (
            "default",
            "one",
            "waiting",
            "/count?a=1",
        )
        assert datetime.fromisoformat(listed["due"]).tzinfo is not None
        assert "T" in listed["due"]
        assert ask("list", "default", "--limit", "1") == [listed]
        [shown] = ask("show", "one")
        assert (shown["headers"], shown["body_bytes"]) == ({"X-A": "b"}, 8)
        assert "body" not in shown
        assert ask("show", "one", "--body")[0]["body"] == "secret=1"

    def test_an_empty_list_is_nothing(self, store):
        assert ask("list") == []
        assert ask("failed") == []
        assert ask("iterations") == []

    def test_queues(self, store):
        store.add([make_task(), make_task(queue="former")])
        store.set_paused("former", True)
        default, former = ask("queues")
        assert (default["name"], default["due"], default["paused"], default["configured"]) == (
            "default",
            1,
            False,
            True,
        )
        assert (former["paused"], former["configured"]) == (True, False)
        assert default["oldest_age"] >= 0

    def test_what_is_done_is_told(self, store):
        store.add([make_task(name=name) for name in "abc"])
        assert ask("pause", "default") == [{"queue": "default", "paused": True}]
        assert ask("resume", "default") == [{"queue": "default", "paused": False}]
        assert ask("run-now", "a") == [{"queue": "default", "name": "a", "due": True}]
        assert ask("delete", "a") == [{"queue": "default", "name": "a", "deleted": True}]
        assert ask("purge", "default", "--no-input") == [{"queue": "default", "deleted": 2}]
        assert ask("relay") == [{"handed_on": 0, "stuck": 0}]
        with pytest.raises(CommandError, match="no task 'a'"):
            ask("delete", "a")


class TestLetters:
    def test_they_are_listed_tried_again_and_discarded(self, store):
        for error in ("one", "two"):
            get_state().add_dead_letter(make_letter(error=error, traceback="lines\nof it"))
        two, one = ask("failed")
        assert (one["error_type"], one["error"], one["iteration"]) == ("a.Error", "one", None)
        assert "T" in one["created"]
        assert "traceback" not in one
        assert ask("failed", str(one["id"]), "--full")[0]["traceback"] == "lines\nof it"
        [told] = ask("failed", "--retry", str(one["id"]))
        assert (told["id"], told["result"].startswith("queued in default")) == (one["id"], True)
        assert ask("failed", "--discard") == [{"discarded": 1}]
        assert two["error"] == "two"


@pytest.fixture
def iteration(paused_iteration):
    """An iteration over 25 rows that was paused in its first batch."""
    return paused_iteration


class TestIterations:
    def test_they_are_listed_and_steered(self, iteration):
        [listed] = ask("iterations")
        assert (listed["id"], listed["status"], listed["done"], listed["total"]) == (iteration.id, "paused", 10, 25)
        assert listed["finished"] is None
        assert "T" in listed["created"]
        assert ask("iterations", "resume", iteration.id[-8:])[0]["status"] == "running"
        assert ask("iterations", "concurrency", iteration.id, "3")[0]["concurrency"] == 3
        assert ask("iterations", "cancel", iteration.id)[0]["finished"] is not None
        assert ask("iterations", "retry-failed", iteration.id) == []

    def test_shards_of_what_does_not_run_do_not_say_that_they_do(self, iteration):
        assert ShardRow.objects.get().status == "running"
        for act, status in ((lambda: None, "paused"), (iteration.resume, "running"), (iteration.cancel, "cancelled")):
            act()
            [shard] = ask("iterations")[0]["shards"]
            assert shard["status"] == status
        IterationRow.objects.update(status="failed")
        assert iteration.refresh().as_dict()["shards"][0]["status"] == "stopped"
        ShardRow.objects.update(status="done")
        assert iteration.refresh().as_dict()["shards"][0]["status"] == "done"

    def test_a_long_error_is_one_short_line(self, task_queues, iteration):
        def fail(request, **_):
            raise FatalTaskError("The first sentence. " + "And many more words, " * 50 + "\nand lines")

        site.behaviours["iterate"] = fail
        iteration.resume()
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        out = io.StringIO()
        call_command("tasks", "iterations", stdout=out, no_color=True)
        [line] = out.getvalue().splitlines()
        assert line.endswith("FatalTaskError: The first sentence.")
        assert "and lines" in ask("iterations")[0]["error"]
        out = io.StringIO()
        call_command("tasks", "iterations", "--full", stdout=out, no_color=True)
        assert "and lines" in out.getvalue()

    def test_a_short_id_says_that_ids_are_whole(self, iteration):
        with pytest.raises(Iteration.DoesNotExist, match="ids have 32 digits, and are given whole"):
            Iteration.get(iteration.id[-8:])
        with pytest.raises(Iteration.DoesNotExist, match="has not run yet"):
            Iteration.get("0" * 32)


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (
            "a.b.BudgetExceededError: 3 of 9 failed, more than 2.5 allows. The last one",
            "BudgetExceededError: 3 of 9 failed, more than 2.5 allows.",
        ),
        ("ValueError: two\nlines", "ValueError: two"),
        ("no class at all: it is said", "no class at all: it is said"),
        ("", ""),
        ("E: " + "x" * 500, "E: " + "x" * 119 + "…"),
    ],
)
def test_errors_are_shortened(error, short):
    assert shorten(error) == short


class TestWatch:
    def test_the_overview_with_the_newest_iterations(self, iteration):
        [told] = ask("watch", "--once")
        assert {"counts", "queues", "alerts", "minutes"} <= set(told)
        assert [each["id"] for each in told["iterations"]] == [iteration.id]

    def test_iterations_that_are_named(self, iteration):
        iteration.cancel()
        [told] = ask("watch", iteration.id[-8:], "--until-done")
        assert (told["id"], told["status"]) == (iteration.id, "cancelled")

    @pytest.mark.requires("rich")
    def test_queues_are_drawn_with_what_is_wrong(self, store, monkeypatch):
        monkeypatch.setenv("COLUMNS", "120")
        store.add([make_task() for _ in range(3)])
        store.add([make_task(eta=datetime.now(UTC) + timedelta(hours=1))])
        store.set_paused("default", True)
        out = io.StringIO()
        call_command("tasks", "watch", "--once", stdout=out, no_color=True)
        lines = out.getvalue().splitlines()
        assert lines[0].split() == ["queue", "state", "due", "waiting", "running", "oldest", "rate", "failing"]
        words = lines[1].split()
        # Behind them is for how many seconds the oldest has waited.
        assert words[:5] == ["default", "paused", "3", "4", "0"]
        assert words[6:] == ["s", "0.0/s"]
        assert "no iterations yet" in out.getvalue()
        assert "manage.py tasks resume default" in out.getvalue()


class TestReadersThatGoAway:
    @pytest.mark.parametrize("size", [1, 20_000])
    def test_they_are_no_error(self, size):
        """Whether the output is larger than what a pipe takes, or lies in a buffer until the end."""
        code = (
            "import django; django.setup(); import soc_tasks.management.verbs.failed as failed;"
            f"failed.handle = lambda command, options: [command.stdout.write('x' * 100) for _ in range({size})];"
            "from django.core.management import execute_from_command_line;"
            "execute_from_command_line(['manage.py', 'tasks', 'failed', '--skip-checks'])"
        )
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            cwd=ROOT,
            text=True,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (BROKEN, "")

    def test_other_broken_pipes_are_errors_still(self, monkeypatch):
        def fail(command, options):
            raise BrokenPipeError("of a mail server, say")

        monkeypatch.setattr("soc_tasks.management.verbs.failed.handle", fail)
        with pytest.raises(BrokenPipeError, match="mail server"):
            call_command("tasks", "failed", stdout=io.StringIO())
