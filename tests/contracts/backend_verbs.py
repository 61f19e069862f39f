"""`manage.py tasks` on every backend: the verbs on queues and tasks, and what they print as JSON."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command

from soc_tasks import FatalTaskError, startTask
from tests.contracts import backend_site


def tasks(*arguments):
    """Return what a verb prints."""
    out = io.StringIO()
    call_command("tasks", *arguments, stdout=out, no_color=True, skip_checks=True)
    return out.getvalue()


def ask(*arguments):
    """Return the objects that a verb prints as JSON."""
    return [json.loads(line) for line in tasks(*arguments, "--json").splitlines()]


class VerbsContract:
    """Assertions on `site`."""

    def test_list_show_and_delete(self, site):
        startTask("play", {"n": "1"}, name="first")
        startTask("play", queue="quick", name="second")
        assert {line["name"]: line["queue"] for line in ask("list")} == {"first": "default", "second": "quick"}
        [listed] = ask("list", "quick")
        assert (listed["path"], listed["state"], listed["attempts"]) == ("/tasks/play/", "waiting", 0)
        assert "second" in tasks("list", "quick")
        [shown] = ask("show", "first", "--body")
        assert (shown["body"], shown["body_bytes"]) == ("n=1", 3)
        assert "n=1" not in tasks("show", "first")
        assert ask("delete", "first") == [{"queue": "default", "name": "first", "deleted": True}]
        for verb in ("show", "delete"):
            with pytest.raises(CommandError, match="no task 'first' in queue 'default'"):
                tasks(verb, "first")
        with pytest.raises(CommandError, match="no queue 'nowhere'"):
            tasks("list", "nowhere")

    def test_purge(self, site):
        startTask("play")
        startTask("play", queue="quick")
        [told] = ask("purge", "default", "--no-input")
        assert (told["queue"], told["deleted"]) in {("default", 1), ("default", None)}
        site.run()
        assert [call.info.queue for call in backend_site.calls] == ["quick"]

    def test_pause_run_now_and_resume(self, site):
        startTask("play", name="now", countdown=3600)
        if not site.steers:
            with pytest.raises(CommandError, match="cannot pause queues"):
                tasks("pause", "default")
            return
        assert ask("pause", "default") == [{"queue": "default", "paused": True}]
        assert {line["name"]: line["paused"] for line in ask("queues")}["default"]
        assert "paused" in tasks("queues")
        assert ask("resume", "default") == [{"queue": "default", "paused": False}]
        assert not {line["name"]: line["paused"] for line in ask("queues")}["default"]
        assert ask("run-now", "now")[0]["due"]
        with pytest.raises(CommandError, match="no task 'nobody'"):
            tasks("run-now", "nobody")
        site.run()
        assert [call.info.name for call in backend_site.calls] == ["now"]

    def test_failed_and_watch(self, site):
        backend_site.acts.append(FatalTaskError("on purpose"))
        startTask("play", name="first")
        site.run()
        [letter] = ask("failed")
        assert (letter["name"], letter["work"], letter["error"]) == ("first", "/tasks/play/", "on purpose")
        [told] = ask("watch", "--once")
        assert [queue["name"] for queue in told["queues"]] == ["default", "quick"]
        assert told["counts"]["dead_letters"] == 1
        assert "dead_letters" in {alert["kind"] for alert in told["alerts"]}
        assert "queued in default" in ask("failed", "--retry", str(letter["id"]))[0]["result"]
        site.run()
        assert len(backend_site.calls) == 2
        assert ask("failed") == []

    def test_doctor_looks_at_the_queues(self, site):
        out = io.StringIO()
        try:
            call_command("tasks", "doctor", "--json", stdout=out)
        except CommandError:
            # What the test site lacks is not this test's concern.
            assert out.getvalue()
        found = {finding["family"]: finding for finding in json.loads(out.getvalue())["findings"]}
        assert found["queues"]["level"] == "ok", found["queues"]
        assert ("google" in found) == site.copies
