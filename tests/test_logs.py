"""The formatters of log lines: complete, one line each, and nothing that comes from elsewhere breaks out."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import sys

import pytest

from soc_tasks import RetryOptions, defer, startTask
from soc_tasks.engine.loglines import format_line
from soc_tasks.logs import Facts, JsonFormatter, KeyValueFormatter, log_task
from soc_tasks.testing import TaskFailedBehaviour
from tests import site
from tests.specimen.functions import note

NASTY = [
    'a"b',
    "a b",
    "a=b",
    "line\nlevel=ERROR event=task",
    "cr\r\n",
    "\x1b[2J",
    "\u2028\u2029\x85",
    "\ud800",
    "ü",
    "",
    "\\",
]


@pytest.fixture(params=[JsonFormatter, KeyValueFormatter])
def formatter(request):
    return request.param()


def make_record(message, *args, level=logging.INFO, error=None):
    info = None
    if error is not None:
        try:
            raise error
        except type(error):
            info = sys.exc_info()
    return logging.LogRecord("soc_tasks.engine", level, __file__, 1, message, args, info)


def read(line):
    """The facts of a line in either form."""
    if line.startswith("{"):
        return json.loads(line)
    pairs = re.findall(r'(?:^| )(\w+)=("(?:[^"\\]|\\.)*"|[^ "]+)(?= |$)', line)
    assert " ".join(f"{name}={value}" for name, value in pairs) == line
    plain = {name: text for name, text in pairs if name == "time" or text[0] not in '"-0123456789'}
    return {name: plain.get(name) or json.loads(text) for name, text in pairs}


def test_every_fact_has_its_name(formatter):
    facts = Facts(queue="q", task="t", path="/x/", attempt=1, outcome="done", status=200, ms=1.25, wait_ms=0.5)
    told = read(formatter.format(make_record("task %s", facts)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told == {"level": "INFO", "pid": os.getpid(), "event": "task", **facts}


def test_other_lines_have_their_message(formatter):
    told = read(formatter.format(make_record("worker %s ended", "a b", level=logging.WARNING)))
    assert (told["event"], told["logger"], told["level"]) == ("log", "soc_tasks.engine", "WARNING")
    assert told["message"] == "worker a b ended"


@pytest.mark.parametrize("text", NASTY)
def test_what_comes_from_elsewhere_stays_in_its_line(formatter, text):
    for record in (make_record("task %s", Facts(task=text, path=text, error=text)), make_record("said %s", text)):
        line = formatter.format(record)
        assert len(line.splitlines()) == 1
        assert line.isascii()
        assert line.isprintable()
        told = read(line)
        assert text in (told.get("task", text), told["message"].removeprefix("said ") if "message" in told else text)


def test_json_has_tracebacks_as_one_field():
    told = json.loads(JsonFormatter().format(make_record("broken", error=ValueError("a\nb"))))
    assert told["error"] == "ValueError"
    assert told["traceback"].startswith("Traceback")
    assert told["traceback"].endswith("ValueError: a\nb\n")


def test_a_traceback_cannot_forge_a_line():
    text = "x\ntime=2026-01-01T00:00:00.000Z level=INFO\r\x1b[2Jtime=y"
    first, *rest = KeyValueFormatter().format(make_record("broken", error=ValueError(text))).splitlines()
    assert first.endswith("message=broken error=ValueError")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert not any("\x1b" in line for line in rest)


def test_the_second_turns_over(formatter):
    record = make_record("x")
    times = []
    for record.created in (1_790_000_000.999, 1_790_000_001.001, 1_790_000_000.5):
        times.append(read(formatter.format(record))["time"])
    assert times == ["2026-09-21T14:13:20.999Z", "2026-09-21T14:13:21.001Z", "2026-09-21T14:13:20.500Z"]


def test_a_site_configures_them_by_name(capsys):
    logger = logging.getLogger("soc_tasks_test_of_formatters")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {"()": "soc_tasks.logs.JsonFormatter"},
                "pairs": {"()": "soc_tasks.logs.KeyValueFormatter"},
            },
            "handlers": {
                "out": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"},
                "err": {"class": "logging.StreamHandler", "formatter": "pairs"},
            },
            "loggers": {logger.name: {"handlers": ["out", "err"], "level": "INFO", "propagate": False}},
        }
    )
    try:
        logger.info("hello")
    finally:
        logger.handlers.clear()
    out, err = capsys.readouterr()
    assert json.loads(out)["message"] == "hello"
    assert err.endswith("message=hello\n")


def test_standard_output_speaks_the_same_language():
    assert format_line("ready: a=1", "keyvalue") == "ready: a=1"
    assert json.loads(format_line("ready: a=1", "json"))["message"] == "ready: a=1"


def test_nothing_is_made_while_nobody_listens(caplog):
    class Unread:
        def partition(self, _):
            raise AssertionError

    with caplog.at_level(logging.ERROR, logger="soc_tasks"):
        log_task(queue="q", task="t", path=Unread(), attempt=1, outcome="done")
    assert caplog.messages == []


@pytest.mark.django_db
def test_a_line_without_the_engine(task_queues, caplog):
    def behaviour(request, **_):
        raise ZeroDivisionError

    site.behaviours["behave"] = behaviour
    handle = startTask("behave", {"a": 1}, retry_options=RetryOptions(max_attempts=2))
    with caplog.at_level(logging.INFO):
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    [line] = [line for line in caplog.messages if line.startswith("task queue=")]
    path = handle.url.partition("?")[0]
    assert line.startswith(f"task queue=default task={handle.name} path={path} attempt=1 outcome=retry status=500 ms=")
    assert line.endswith("error=ZeroDivisionError")


@pytest.mark.django_db
def test_the_line_of_a_deferred_call_without_the_engine(task_queues, caplog, called):
    defer(note, 1, _name="once")
    with caplog.at_level(logging.INFO):
        task_queues.process_task_queues()
    [line] = [line for line in caplog.messages if line.startswith("task queue=")]
    assert re.search(r"outcome=done .* function=tests\.specimen\.functions\.note start=[0-9a-f]{32}$", line)
