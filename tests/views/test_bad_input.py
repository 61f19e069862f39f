"""Bad input: refused before it is read, or kept as a dead letter where the queue proves to have sent it."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import pickle

import pytest
from django.db import OperationalError
from django.test import Client, RequestFactory

from soc_tasks import Iteration, startTask
from soc_tasks.meta import Meta, SliceMessage
from soc_tasks.state import get_state
from soc_tasks.state.django import DjangoState
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from soc_tasks.values import DELIVERY_KEY, META_HEADER, OUTCOME_HEADER, Delivery
from tests import site

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"
START_ID = "0123456789abcdef" * 2
SLICE = SliceMessage(iteration=START_ID, shard=0, step=0, epoch=0)


class Unread(io.RawIOBase):
    """A body that must not be read."""

    def read(self, *_):
        raise AssertionError("the body was read")


class Gone(io.RawIOBase):
    """A body whose client has gone."""

    def read(self, *_):
        raise OSError("connection reset by peer")


def call(body=b"", *, path="/tasks/behave/", method="POST", proven=True, meta=None, content_type=FORM, **environ):
    """Make a call as the queue makes it, or as anybody does; whatever leaves a view is raised here."""
    header = Meta(start_id=START_ID).to_header() if meta is None else meta
    environ = {"HTTP_X_SOCTASKS_META": header, "CONTENT_TYPE": content_type, **environ}
    if proven:
        environ[DELIVERY_KEY] = Delivery(queue="default", name="made", eta=None)
    response = Client().generic(method, path, body, **environ)
    assert response.content == b""
    return response


def is_dead(response):
    return response.status_code == 200 and response[OUTCOME_HEADER] == "dead"


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
def test_only_post_is_a_call(site_calls, method, proven):
    response = call(method=method, proven=proven, **{"wsgi.input": Unread()})
    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert site_calls == []


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("-1", 400),
        ("+1", 400),
        ("x", 400),
        ("1.5", 400),
        ("0x10", 400),
        ("1 2", 400),
        (" 1", 400),
        ("1_0", 400),
        ("\u0661", 400),
        ("2621441", 413),
        ("9" * 18, 413),
        ("9" * 5000, 413),
    ],
)
def test_the_length_is_judged_before_access(site_calls, length, status, proven):
    response = call(proven=proven, CONTENT_LENGTH=length, **{"wsgi.input": Unread()})
    assert response.status_code == status
    assert site_calls == []


def test_an_endless_length_is_refused_even_without_a_limit(settings, site_calls):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    assert call(CONTENT_LENGTH="9" * 5000).status_code == 413
    assert call(b"a=b").status_code == 200
    assert len(site_calls) == 1


@pytest.mark.parametrize("body", [Gone(), io.BytesIO(b""), io.BytesIO(b"a=b"), io.BytesIO(b"a=bcdefg")])
def test_a_body_that_breaks_off_comes_again(site_calls, body):
    response = call(CONTENT_LENGTH="9", **{"wsgi.input": body})
    assert response.status_code == 500
    assert not response.has_header(OUTCOME_HEADER)
    assert get_state().list_dead_letters() == []
    assert site_calls == []


@pytest.mark.parametrize("environ", [{}, {"CONTENT_TYPE": ""}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "0"}])
def test_an_empty_body_is_fine(site_calls, environ):
    assert call(**environ).status_code == 200
    [(_, request, _)] = site_calls
    assert request.task.context == {}


@pytest.mark.parametrize("content_type", [FORM, FORM.upper(), f"{FORM}; charset=utf-8", f'{FORM};charset="UTF-8"'])
def test_a_form_is_fine(site_calls, content_type):
    assert call(b"a=b+c&a2=%C3%BC&=x&d&a=e", content_type=content_type).status_code == 200
    [(_, request, _)] = site_calls
    assert request.task.context == {"a": ["b c", "e"], "a2": "ü", "": "x", "d": ""}


def typed(**values):
    """A form whose values are typed JSON, however broken."""
    return {
        "body": "&".join(f"{key}={value}" for key, value in values.items()).encode(),
        "meta": Meta(start_id=START_ID, json_keys=tuple(values)).to_header(),
    }


def header(text, body=b"a=b"):
    return {"body": body, "meta": text}


MULTIPART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
BAD = {
    "json": {"body": b'{"a": "b"}', "content_type": "application/json"},
    "json null": {"body": b"null", "content_type": "application/json"},
    "xml": {"body": b"<a/>", "content_type": "text/xml"},
    "yaml": {"body": b"a: !!python/name:os.system", "content_type": "application/yaml"},
    "pickle": {"body": pickle.dumps({"a": 1}), "content_type": "application/octet-stream"},
    "pickle as a form": {"body": pickle.dumps({"a": 1})},
    "multipart": {"body": MULTIPART, "content_type": "multipart/form-data; boundary=x"},
    "broken multipart": {"body": b"a", "content_type": "multipart/form-data"},
    "text": {"body": b"a=b", "content_type": "text/plain"},
    "no type": {"body": b"a=b", "content_type": ""},
    "bad type": {"body": b"a=b", "content_type": ";;;"},
    "utf-7": {"body": b"a=+ADw-", "content_type": f"{FORM}; charset=utf-7"},
    "utf-16": {"body": "a=b".encode("utf-16"), "content_type": f"{FORM}; charset=utf-16"},
    "latin-1": {"body": b"a=%FC", "content_type": f"{FORM}; charset=latin-1"},
    "utf8": {"body": b"a=b", "content_type": f"{FORM}; charset=utf8"},
    "no charset": {"body": b"a=b", "content_type": f"{FORM}; charset=no-such"},
    "gzip": {"body": gzip.compress(b"a=b"), "HTTP_CONTENT_ENCODING": "gzip"},
    "gzip, twice": {"body": b"a=b", "HTTP_CONTENT_ENCODING": "gzip, gzip"},
    "raw UTF-8": {"body": "a=ü".encode()},
    "invalid UTF-8": {"body": b"a=\xff"},
    "invalid UTF-8, quoted": {"body": b"a=%ff"},
    "a surrogate": {"body": b"a=%ED%A0%80"},
    "UTF-16 without a word": {"body": "a=b".encode("utf-16")},
    "a BOM": {"body": b"\xef\xbb\xbfa=b"},
    "NUL": {"body": b"a=\x00"},
    "NUL, quoted": {"body": b"a=%00"},
    "NUL in a key": {"body": b"%00=a&b=%20"},
    "1,001 fields": {"body": b"&".join([b"a=b"] * 1001)},
    "typed: empty": typed(a=""),
    "typed: truncated": typed(a="[1"),
    "typed: NaN": typed(a="NaN"),
    "typed: Infinity": typed(a="[-Infinity]"),
    "typed: 1e999": typed(a="1e999"),
    "typed: duplicate keys": typed(a='{"b":1,"b":2}'),
    "typed: trailing": typed(a="1 2"),
    "typed: a BOM": typed(a="%EF%BB%BF1"),
    "typed: 5,000 digits": typed(a="1" * 5000),
    "typed: depth 33": typed(a="[" * 33 + "]" * 33),
    "typed: depth 100,000": typed(a="[" * 100_000),
    "typed: a surrogate": typed(a='"\\ud800"'),
    "typed: NUL": typed(a='"\\u0000"'),
    "typed: unknown tag": typed(a='{"__soc__":"os.system","v":"x"}'),
    "typed: wrong type": typed(a='{"__soc__":"uuid","v":5}'),
    "typed: twice": typed(a="1&a=2"),
    "typed: missing": header(Meta(start_id=START_ID, json_keys=("b",)).to_header()),
    "list: missing": header(Meta(start_id=START_ID, list_keys=("b",)).to_header()),
    "header: none": header(""),
    "header: no JSON": header("x"),
    "header: null": header("null"),
    "header: a list": header("[]"),
    "header: text": header('"x"'),
    "header: empty": header("{}"),
    "header: no version": header(json.dumps({"id": START_ID})),
    "header: unknown version": header(json.dumps({"v": 2, "id": START_ID})),
    "header: no id": header(json.dumps({"v": 1})),
    "header: bad id": header(json.dumps({"v": 1, "id": "../" + START_ID})),
    "header: id of another type": header(json.dumps({"v": 1, "id": 5})),
    "header: deep": header("[" * 7000 + "]" * 7000),
    "header: keys are a number": header(json.dumps({"v": 1, "id": START_ID, "json": 5})),
    "header: keys are a text": header(json.dumps({"v": 1, "id": START_ID, "json": "a"})),
    "header: keys are lists": header(json.dumps({"v": 1, "id": START_ID, "json": [["a"]]})),
    "header: keys are mixed": header(json.dumps({"v": 1, "id": START_ID, "lists": [1, None, "b"]})),
    "header: slice of two": header(json.dumps({"v": 1, "id": START_ID, "slice": [START_ID, 0]})),
    "header: slice of text": header(json.dumps({"v": 1, "id": START_ID, "slice": [START_ID, "0", 0, 0]})),
    "header: slice below 0": header(json.dumps({"v": 1, "id": START_ID, "slice": [START_ID, 0, -1, 0]})),
    "header: slice of 2^70": header(json.dumps({"v": 1, "id": START_ID, "slice": [START_ID, 2**70, 0, 0]})),
    "header: slice of another": header(json.dumps({"v": 1, "id": START_ID, "slice": ["x", 0, 0, 0]})),
    "header: inherits nothing known": header(json.dumps({"v": 1, "id": START_ID, "inherited": {"colour": 1}})),
    "header: inherits a list": header(json.dumps({"v": 1, "id": START_ID, "inherited": [1]})),
    "header: inherits bad headers": header(json.dumps({"v": 1, "id": START_ID, "inherited": {"headers": 5}})),
    "header: inherits bad retries": header(json.dumps({"v": 1, "id": START_ID, "inherited": {"retry": {"x": 1}}})),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_the_queue_sends_but_nobody_can_read_is_kept_as_a_dead_letter(site_calls, bad):
    assert is_dead(call(**bad))
    assert site_calls == []
    [letter] = get_state().list_dead_letters()
    assert letter.task.body == bad["body"]
    assert (letter.task.path, letter.task.queue, letter.task.name) == ("/tasks/behave/", "default", "made")
    assert (letter.attempts, letter.error_type) == (1, "soc_tasks.views.intake.BadInputError")
    assert letter.error


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_anybody_else_sends_is_refused_unread(site_calls, bad):
    response = call(**{**bad, "body": b""}, proven=False, **{"wsgi.input": Unread(), "CONTENT_LENGTH": "5"})
    assert response.status_code == 403
    assert site_calls == []
    assert get_state().list_dead_letters() == []


def test_a_form_that_a_middleware_has_read_before_is_dead_too(site_calls):
    environ = {
        DELIVERY_KEY: Delivery(queue="default", name="made"),
        "HTTP_X_SOCTASKS_META": Meta(start_id=START_ID).to_header(),
    }
    request = RequestFactory().post("/tasks/behave/", {"a": "b"}, **environ)
    assert request.POST["a"] == "b"
    assert is_dead(site.behave(request))
    assert site_calls == []


def test_a_dead_letter_that_cannot_be_kept_has_the_task_come_again(monkeypatch, site_calls):
    def fail(*_):
        raise OperationalError("disk full")

    monkeypatch.setattr(DjangoState, "add_dead_letter", fail)
    response = call(b"x", content_type="application/json")
    assert response.status_code == 500
    assert not response.has_header(OUTCOME_HEADER)


@pytest.mark.parametrize("proven", [True, False])
def test_a_foreign_host_gets_djangos_400(site_calls, proven):
    environ = {DELIVERY_KEY: Delivery(queue="default", name="made")} if proven else {}
    assert Client().post("/tasks/behave/", HTTP_HOST="evil.example", **environ).status_code == 400
    assert site_calls == []


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (SLICE, 200),
        (dataclasses.replace(SLICE, shard=7), 200),
        (dataclasses.replace(SLICE, step=10**6), 200),
        (dataclasses.replace(SLICE, epoch=3), 200),
    ],
)
def test_a_slice_of_an_iteration_that_nobody_knows_is_dropped(site_calls, message, status):
    response = call(path="/tasks/iterate/", meta=Meta(start_id="f" * 32, slice=message).to_header())
    assert response.status_code == status
    assert not response.has_header(OUTCOME_HEADER)
    assert get_state().list_dead_letters() == []
    assert site_calls == []


@pytest.mark.parametrize(
    ("change", "status"), [({"step": 1}, 500), ({"step": 2**31 - 1}, 500), ({"epoch": 1}, 200), ({"shard": 1}, 200)]
)
def test_a_slice_of_another_step_epoch_or_shard_runs_nothing(memory_backend, change, status):
    handle = startTask("iterate")
    [start] = memory_backend.tasks_now()
    call(start.body, path=start.path, meta=start.headers[META_HEADER])
    message = dataclasses.replace(SLICE, iteration=handle.iteration, **change)
    response = call(path=start.path, meta=Meta(start_id="f" * 32, slice=message).to_header())
    assert response.status_code == status
    assert not response.has_header(OUTCOME_HEADER)
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.shards[0].step) == ("running", 0)
    assert get_state().list_dead_letters() == []


@pytest.mark.parametrize(
    "start_key", [5, 2**70, ["x"], {"a": 1}, True, "x", "[]", "[1,2,3]", "null ", "[1180591620717411303424]", "\ufeff"]
)
def test_a_start_key_that_can_never_work_is_dead(task_queues, site_calls, start_key):
    startTask("iterate", {"start_key": start_key})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert len(get_state().list_dead_letters()) == 1
    assert Iteration.all() == []
    assert site_calls == []


@pytest.mark.parametrize("text", ["a \udcff name", "a\x00b", "\ud800"])
def test_an_error_that_no_database_can_store_is_kept_as_it_can_be(task_queues, caplog, text):
    # A report that quotes such a text cannot travel between the processes of pytest-xdist.
    caplog.set_level("CRITICAL", "soc_tasks")

    def fail(request, **_):
        raise FileNotFoundError(text)

    site.behaviours["behave_picky"] = fail
    startTask("behave_picky")
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    [letter] = get_state().list_dead_letters()
    assert letter.error.isprintable()
    assert "FileNotFoundError" in letter.traceback


def test_what_was_posted_to_steer_an_iteration_is_in_no_line_of_the_log(task_queues, caplog):
    secret = "sentinel-4711"
    for context in (
        {"filter": f'"{secret}"'},
        {"filter": [secret]},
        {"filter": secret},
        {"order": [secret]},
        {"start_key": {"a": secret}},
        {"filter": {"count": 1}, "fields": {"title": secret}},
        {"logic": {"a": secret}},
    ):
        startTask("iterate", context)
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert len(get_state().list_dead_letters()) == 7
    assert secret not in caplog.text
