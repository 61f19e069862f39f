"""`tasks relay`, once and as a process that runs all the time."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from soc_tasks.errors import BackendUnavailableError
from soc_tasks.management.verbs.relay import repeat
from tests.engine.running import ROOT, until


class Rounds:
    """What the rounds of a relay find, one after the other; it ends after the last."""

    def __init__(self, *found):
        self.found = list(found)
        self.waited = []

    def once(self):
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def wait(self, seconds):
        self.waited.append(seconds)
        return not self.found


def relay(*found):
    rounds, told = Rounds(*found), []
    repeat(2.5, rounds.wait, rounds.once, told.append)
    return rounds.waited, told


@pytest.mark.django_db
def test_it_tells_of_rounds_that_had_something_to_do():
    waited, told = relay((0, 0), (3, 0), (0, 1), (0, 0))
    assert waited == [2.5] * 4
    assert told == ["3 tasks handed on, 0 stuck shards queued anew", "0 tasks handed on, 1 stuck shards queued anew"]


@pytest.mark.django_db
def test_what_is_away_is_told_once_and_does_not_end_it(caplog):
    caplog.set_level(logging.INFO, "soc_tasks")
    away = OperationalError("no server")
    relay(away, away, BackendUnavailableError("no service"), (0, 0), (0, 0), away)
    assert [record.getMessage() for record in caplog.records] == [
        "the relay cannot work, and tries again every 2.5 s: no server",
        "the relay works again",
        "the relay cannot work, and tries again every 2.5 s: no server",
    ]


@pytest.mark.django_db
def test_a_bug_does_not_end_it(caplog):
    _, told = relay(ValueError("a bug"), (1, 0))
    assert "a bug" in caplog.text
    assert len(told) == 1


@pytest.mark.parametrize("every", ["0", "-1", "inf", "nan", "soon"])
def test_nonsense_is_refused(every):
    with pytest.raises(CommandError, match="--every"):
        call_command("tasks", "relay", f"--every={every}")


@pytest.fixture
def start(tmp_path):
    """Start `tasks relay --every` on a site whose database is not there yet; kill what is left at the end."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "django", "tasks", "relay", *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.engine.settings",
                "ENGINE_DATABASE": str(tmp_path / "there" / "site.db"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        process.lines, process.errors = [], []
        for stream, lines in ((process.stdout, process.lines), (process.stderr, process.errors)):
            threading.Thread(target=lambda s=stream, to=lines: to.extend(s), daemon=True).start()
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start, number):
    process = start("--every", "3600")
    until(lambda: process.lines or process.poll() is not None)
    assert process.lines == ["soc_tasks relay ready: every=3600s\n"]
    process.send_signal(number)
    assert process.wait(30) == 0


def test_a_database_that_comes_later(start, tmp_path, empty_database):
    process = start("--every", "0.01", "--skip-checks")
    until(lambda: process.errors or process.poll() is not None)
    assert "the relay cannot work, and tries again every 0.01 s" in process.errors[0]
    made = tmp_path / "made"
    made.mkdir()
    (made / "site.db").write_bytes(empty_database.read_bytes())
    # In one step: half a file is none.
    made.rename(tmp_path / "there")
    until(lambda: len(process.errors) > 1 or process.poll() is not None)
    assert "the relay works again" in process.errors[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert len(process.errors) == 2
