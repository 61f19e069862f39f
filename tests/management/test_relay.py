"""`tasks relay`, once and as a process that runs all the time."""

from __future__ import annotations

import logging
import signal
from functools import partial

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from soc_tasks.errors import BackendUnavailableError
from soc_tasks.management.verbs.relay import repeat
from tests.engine.running import PATIENCE, started_processes, until


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
    repeat(2.5, rounds.wait, rounds.once, lambda *done: told.append(done))
    return rounds.waited, told


@pytest.mark.django_db
def test_it_tells_of_rounds_that_had_something_to_do():
    waited, told = relay((0, 0), (3, 0), (0, 1), (0, 0))
    assert waited == [2.5] * 4
    assert told == [(3, 0), (0, 1)]


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
    """Start `tasks relay` on a site whose database is not there yet; kill what is left at the end."""
    with started_processes() as start:
        yield partial(
            start, "-m", "django", "tasks", "relay", ready=False, ENGINE_DATABASE=tmp_path / "there" / "site.db"
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start, number):
    process = start("--every", "3600")
    until(lambda: process.lines or process.poll() is not None)
    assert process.lines == ["soc_tasks relay ready: every=3600s\n"]
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0


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
    assert process.wait(PATIENCE) == 0
    assert len(process.errors) == 2
