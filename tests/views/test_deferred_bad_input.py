"""What the queue sends to the view for deferred functions, and nobody can call."""

from __future__ import annotations

import base64
import gzip
import pickle
import zlib
from urllib.parse import urlencode

import pytest

from soc_tasks import defer
from soc_tasks.logic import calls
from soc_tasks.models import PayloadRow
from tests.specimen import functions
from tests.specimen.functions import note
from tests.specimen.noise import LARGE
from tests.views.deferring import letters, outcome, post, send, signed, write

pytestmark = pytest.mark.django_db(databases=["default", "other"])


class Canary:
    """Unpickled, it is heard."""

    def __reduce__(self):
        return functions.note, ("canary",)


TWO = {"__soc__": "function", "v": "tests.specimen.functions:two"}


def named(name):
    return write(function={"__soc__": "function", "v": name})


BOMB = base64.urlsafe_b64encode(zlib.compress(b"[" * 200_000_000, 9)).decode()
PICKLE = base64.urlsafe_b64encode(pickle.dumps(Canary())).decode()
BAD = {
    "nothing": {},
    "empty values": {"function": "", "signature": "", "payload": ""},
    "another field": {**write(), "more": "1"},
    "two texts": {**write(), "packed": "x"},
    "no text": {"function": "x", "signature": "0" * 64},
    "the task's own words": {"a": "b"},
    "a text twice": urlencode(write()).encode() + b"&payload=x",
    "text: empty": signed(""),
    "text: null": signed("null"),
    "text: a list": signed("[]"),
    "text: a str": signed('"x"'),
    "text: empty dict": signed("{}"),
    "text: truncated": signed(write()["payload"][:-1]),
    "text: trailing": signed(write()["payload"] + "{}"),
    "text: NaN": signed(write()["payload"].replace("[1]", "[NaN]")),
    "text: Infinity": signed(write()["payload"].replace("[1]", "[-Infinity]")),
    "text: 1e999": signed(write()["payload"].replace("[1]", "[1e999]")),
    "text: duplicate keys": signed(write()["payload"].replace('"args"', '"version": 1, "args"')),
    "text: 5,000 digits": signed(write()["payload"].replace("[1]", "[" + "1" * 5000 + "]")),
    "text: a surrogate": signed(write()["payload"].replace("[1]", '["\\ud800"]')),
    "text: NUL": signed(write()["payload"].replace("[1]", '["\\u0000"]')),
    "text: depth 33": signed(write()["payload"].replace("[1]", "[" * 34 + "]" * 34)),
    "text: depth 100,000": signed(write()["payload"].replace("[1]", "[" * 100_000)),
    "text: unknown tag": write(args=[{"__soc__": "os.system", "v": "true"}]),
    "text: no version": write(version=...),
    "text: unknown version": write(version=2),
    "text: version of another type": write(version="1"),
    "text: no function": write(function=...),
    "text: function is text": write(function="tests.specimen.functions:note"),
    "text: function is null": write(function=None),
    "text: function is data": write(function={"__soc__": "tuple", "v": []}),
    "text: no args": write(args=...),
    "text: args of another type": write(args={"0": 1}),
    "text: args are a tuple": write(args={"__soc__": "tuple", "v": [1]}),
    "text: no kwargs": write(kwargs=...),
    "text: kwargs of another type": write(kwargs=[]),
    "text: kwargs without names": write(kwargs={"__soc__": "map", "v": [[1, 2]]}),
    "text: atomic of another type": write(atomic=1),
    "text: no using": write(using=...),
    "text: using of another type": write(using=None),
    "text: one field more": write(more=1),
    "arguments that do not match": write(
        function={"__soc__": "function", "v": "tests.specimen.functions:two"}, args=[]
    ),
    "arguments with other names": write(
        function={"__soc__": "function", "v": "tests.specimen.functions:two"}, kwargs={"third": 1}
    ),
    "os.system": named("os:system"),
    "posix.system": named("posix:system"),
    "builtins.eval": named("builtins:eval"),
    "subprocess.run": named("subprocess:run"),
    "a.b.__globals__": named("tests.specimen.functions:note.__globals__"),
    "dunder path": named("tests.specimen.functions:Maker.__subclasses__"),
    "no name": named(""),
    "a name without a module": named("note"),
    "a method of a built-in type": write(function={"__soc__": "method", "v": [{"__soc__": "class", "v": "os:x"}, "y"]}),
    "packed: empty": {"function": "x", "signature": "0" * 64, "packed": ""},
    "packed: no base64": {"function": "x", "signature": "0" * 64, "packed": "é"},
    "packed: one sign": {"function": "x", "signature": "0" * 64, "packed": "A"},
    "packed: not packed": {"function": "x", "signature": "0" * 64, "packed": "AAAA"},
    "packed: truncated": {**signed("[]", "packed"), "packed": signed("[]", "packed")["packed"][:-8]},
    "packed: no ASCII": {
        "function": "x",
        "signature": "0" * 64,
        "packed": base64.urlsafe_b64encode(zlib.compress("é".encode())).decode(),
    },
    "packed: trailing": {
        **signed("[]", "packed"),
        "packed": base64.urlsafe_b64encode(zlib.compress(b"[]") + b"x").decode(),
    },
    "packed: gzip": {
        "function": "x",
        "signature": "0",
        "packed": base64.urlsafe_b64encode(gzip.compress(b"")).decode(),
    },
    "packed: a bomb": {"function": "x", "signature": "0" * 64, "packed": BOMB},
    "packed: a pickle": {"function": "x", "signature": "0" * 64, "packed": PICKLE},
    "payload: a pickle": {"function": "x", "signature": "0" * 64, "payload": PICKLE},
    "body: a pickle": pickle.dumps(Canary()),
    "body: JSON": b"{}",
    "body: invalid UTF-8": b"payload=%ff",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_the_queue_sends_but_nobody_can_call_is_kept_as_a_dead_letter(called, body):
    assert outcome(post(body)) == (200, "dead")
    assert called == []
    [letter] = letters()
    assert letter.error
    assert letter.task.body == (urlencode(body).encode() if isinstance(body, dict) else body)


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/json", "multipart/form-data"])
def test_another_kind_of_body_is_a_dead_letter(called, content_type):
    assert outcome(post(pickle.dumps(Canary()), content_type=content_type)) == (200, "dead")
    assert called == []


def test_a_damaged_text_in_the_state_is_a_dead_letter(narrow, memory_backend, called):
    for data in (b"x", zlib.compress(b"[]"), zlib.compress(b"{}" * 10**7), pickle.dumps(Canary())):
        defer(note, LARGE)
        PayloadRow.objects.update(data=data)
        assert outcome(send(memory_backend.tasks_now()[-1])) == (200, "dead")
    assert called == []
    assert len(letters()) == 4


def test_a_bomb_is_not_unpacked(monkeypatch):
    most = []
    make = zlib.decompressobj

    class Watched:
        def __init__(self):
            self.inner = make()

        def decompress(self, data, length):
            most.append(length)
            return self.inner.decompress(data, length)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    monkeypatch.setattr("soc_tasks.logic.envelopes.zlib.decompressobj", Watched)
    assert outcome(post({"function": "x", "signature": "0" * 64, "packed": BOMB})) == (200, "dead")
    assert most == [calls.MOST_BYTES]


def test_a_name_in_the_label_calls_nothing(called):
    assert outcome(post({**write(), "function": "os.system"})) == (200, "")
    assert outcome(post({**write(), "function": "a\nb"})) == (200, "")
    assert called == [((1,), {})] * 2
