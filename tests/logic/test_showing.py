"""What people see of a task: secrets are left out at whatever depth, and what cannot be read is shown as it is sent."""

from __future__ import annotations

import pytest

from soc_tasks.logic.showing import LONGEST, MASK, is_secret, read_context, read_headers, write_curl
from soc_tasks.logic.tasks import build_task
from soc_tasks.values import Task, TaskRequest

# A task is made at the time of the queue, which a database server tells.
pytestmark = pytest.mark.django_db


def made(context=None, **fields):
    return build_task(TaskRequest(url="/tasks/behave/", context=context, **fields), "default")[0]


@pytest.mark.parametrize(
    "name", ["password", "Passwd", "api_key", "apiKey", "auth_token", "SECRET", "sessionid", "cookie"]
)
def test_names_that_speak_of_secrets(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["start_key", "student", "passenger", "keyboard", "author"])
def test_names_that_do_not(name):
    assert not is_secret(name)


def test_a_context_is_shown_with_its_types_and_without_secrets():
    task = made(
        {"n": 3, "text": "x & y", "tags": ["a", "b"], "deep": {"login": {"password": "p1"}, "a": [{"token": "t1"}]}}
    )
    shown = dict(read_context(task))
    assert (shown["n"], shown["text"], shown["tags"]) == ("3", "x & y", '["a","b"]')
    assert "p1" not in shown["deep"]
    assert "t1" not in shown["deep"]
    assert shown["deep"].count(MASK) == 2


def test_a_body_that_is_none_of_ours_is_shown_as_it_is():
    assert read_context(Task(queue="q", name="n", path="/x", body="é=1".encode())) == [("body", "é=1")]
    assert read_context(Task(queue="q", name="n", path="/x", body=b"a=1&a=2")) == [("a", '["1","2"]')]
    assert read_context(Task(queue="q", name="n", path="/x")) == []


def test_a_long_value_is_cut():
    [(_, text)] = read_context(made({"text": "x" * 10_000}))
    assert len(text) < LONGEST + 50
    assert text.endswith("… (10,000 characters)")


def test_a_line_of_curl_can_be_pasted_and_gives_nothing_away():
    task = made({"note": "it's", "password": "p1"}, headers={"X-Api-Token": "t1", "X-Note": "a b"})
    line = write_curl(task, "https://example.org")
    assert line.startswith("curl -X POST https://example.org/tasks/behave/ ")
    assert "-H 'X-Note: a b'" in line
    assert "note=it%27s" in line
    assert "p1" not in line
    assert "t1" not in line
    assert "X-SocTasks-Meta" not in line
    assert ("X-Api-Token", MASK) in read_headers(task)
