"""The example project: its settings say every default, its pages open, and the demo's own parts do as they say."""

from __future__ import annotations

import re
import smtplib
from dataclasses import fields

import pytest
from django.test import Client
from django.urls import reverse

from examples.demo import Result
from examples.processes import Process
from soc_tasks.conf import Settings, find_problems


@pytest.fixture
def example(monkeypatch):
    """Load settings_example as a newcomer has it: with nothing in the environment."""
    import settings_example

    for name in ("TASKS_LEASE_SECONDS", "TASKS_RUNSERVER"):
        monkeypatch.delenv(name, raising=False)
    values = {"__file__": settings_example.__file__, "__name__": "fresh"}
    with open(settings_example.__file__) as source:
        exec(compile(source.read(), settings_example.__file__, "exec"), values)
    return values


def test_settings_say_every_key_with_its_default(example):
    assert find_problems(example["SOC_TASKS"]) == []
    defaults = Settings()
    assert example["SOC_TASKS"] == {field.name.upper(): getattr(defaults, field.name) for field in fields(Settings)}


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
    process.stop()
