"""The example project: its settings say every default, its pages open, and the demo's own parts do as they say."""

from __future__ import annotations

import os
import re
import smtplib
from contextlib import ExitStack, nullcontext
from dataclasses import fields

import pytest
from django.test import Client
from django.urls import reverse

from examples.cast import Cloud, Datastore, Embedded
from examples.demo import Result
from examples.processes import Process
from soc_tasks.conf import Settings, find_problems


@pytest.fixture
def load_example(monkeypatch):
    """Give a function that loads settings_example with nothing in the environment but what is given."""
    import settings_example

    def load(**environment):
        for name in ("TASKS_BACKEND", "TASKS_LEASE_SECONDS", "TASKS_RUNSERVER", "TASKS_SLICE_SECONDS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        values = {"__file__": settings_example.__file__, "__name__": "fresh"}
        with open(settings_example.__file__) as source:
            exec(compile(source.read(), settings_example.__file__, "exec"), values)
        return values

    return load


def test_settings_say_every_key_with_its_default(load_example):
    example = load_example()
    assert find_problems(example["SOC_TASKS"]) == []
    defaults = Settings()
    assert example["SOC_TASKS"] == {field.name.upper(): getattr(defaults, field.name) for field in fields(Settings)}


def test_only_where_a_worker_checkpoints_nobody_else_does(load_example):
    for backend, leaves_it in (("embedded", True), ("cloud_tasks", False)):
        example = load_example(TASKS_BACKEND=backend, TASKS_SLICE_SECONDS="2.5")
        assert (example["SOC_TASKS"]["BACKEND"], example["SOC_TASKS"]["SLICE_SECONDS"]) == (backend, 2.5)
        pragmas = example["DATABASES"]["default"]["OPTIONS"]["init_command"]
        assert "journal_mode=WAL" in pragmas
        assert ("wal_autocheckpoint=0" in pragmas) is leaves_it


@pytest.mark.parametrize("cast", [Embedded, Cloud, Datastore])
def test_a_cast_starts_again_whom_it_kills(cast, tmp_path, monkeypatch):
    started = []

    class Quiet(nullcontext):
        def __init__(self, *arguments, program, log):
            super().__init__(self)
            self.log = log.stem
            started.append(self.log)

        def kill(self):
            started.append(f"not {self.log}")

    monkeypatch.setattr("examples.cast.Process", Quiet)
    monkeypatch.setattr("django.core.management.call_command", lambda *arguments: started.append(" ".join(arguments)))
    # What a cast leaves in the environment is for its processes.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with ExitStack() as stack:
        players = cast(stack, tmp_path)
        players.start_all(started.append)
        assert os.environ["TASKS_BACKEND"] == cast.backend
        assert set(players.processes) == set(players.find_commands()) >= {kill.victim for kill in cast.kills}
        assert players.lead in players.processes
        assert started[-1] == players.port
        if issubclass(cast, Cloud):
            # Before the first task there are its queues.
            assert started.index("tasks queues --apply") < started.index("site")
            assert {kill.victim for kill in cast.kills} == set(players.processes)
        for kill in cast.kills:
            players.kill(kill.victim)
            assert started[-2:] == [f"not {kill.victim}", kill.victim]


@pytest.mark.django_db
def test_home_leads_to_both_examples():
    page = Client().get("/").content.decode()
    assert reverse("gazetteer") in page
    assert reverse("email_all_starter", kwargs={"slug": "gsoc"}) in page


@pytest.mark.django_db
def test_admin_login_opens():
    assert Client().get(reverse("admin:login")).status_code == 200


def test_last_line_of_the_demo():
    assert str(
        Result(mails=10_042, duplicated=42, cities=34_006, totals_match=True, kills=["a", "b"], seconds=61.23)
    ) == ("demo: students=10000 mails=10042 lost=0 duplicated=42 cities=34006 totals_match=yes kills=2 seconds=61.2")


@pytest.mark.requires("aiosmtpd")
def test_mail_sink_counts_by_student():
    from examples.sink import MailSink

    seen = []
    with MailSink(on_mail=seen.append) as sink, smtplib.SMTP("127.0.0.1", sink.port) as server:
        for student in (1, 2, 1):
            server.sendmail("a@example.org", "b@example.org", f"X-Student: {student}\r\n\r\nX-Student: 9\r\n")
    assert sink.arrived == {1: 2, 2: 1}
    assert sink.total == 3
    assert seen == [1, 2, 3]


@pytest.mark.requires("sigkill")
def test_process_leaves_its_output_and_is_always_ended(tmp_path):
    with Process("version", log=tmp_path / "log") as process:
        assert process.wait() == 0
        assert process.has_ended()
    assert re.match(r"\d+\.\d+", process.read_log())

    with Process("shell", "-c", "import signal; signal.pause()", log=tmp_path / "log") as process:
        assert not process.has_ended()
        process.kill()
        process.kill()  # no signal may reach whoever has the number now

    # Those that end with whoever started them do so by this.
    with Process("import sys; sys.stdin.read(); print('over')", program=("-c",), log=tmp_path / "log") as process:
        process._process.stdin.close()
        assert process.wait() == 0
    assert process.read_log().endswith("over")

    with Process("shell", "-c", "import signal; signal.pause()", log=tmp_path / "log") as process:
        assert not process.has_ended()
    process.stop()
