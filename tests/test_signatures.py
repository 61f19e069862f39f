"""Signatures of calls by HTTP: what they cover, whose they are, how long they hold."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import itertools
import json
import struct
import time
from datetime import UTC, datetime

import pytest
from django.core.signing import Signer
from django.test import RequestFactory

from soc_tasks import signatures
from soc_tasks.signatures import (
    Signed,
    StaleError,
    digest,
    is_body,
    is_genuine,
    read_facts,
    sign,
    unquote_path,
    write_facts,
)
from soc_tasks.values import Delivery

SIGNED = Signed(
    method="POST", path="/tasks/x/", query="a=b", content_type="application/x", facts='{"queue":"q"}', meta='{"v":1}'
)
NOW = 1_800_000_000.0
MADE = Delivery(
    queue="mail",
    name="nightly",
    retry_count=3,
    execution_count=2,
    eta=datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    previous_status=503,
    is_last_attempt=True,
)


def test_the_signature_is_the_one_that_the_documents_describe(settings):
    """Other programs check it by that page."""
    settings.SECRET_KEY = "key"
    texts = [b"v1", b"POST", b"/tasks/x/", b"a=b", b"application/x", b'{"queue":"q"}', b'{"v":1}']
    key = hashlib.sha256(b"soc_tasks.signatures.dispatch" + b"key").digest()
    message = b"".join(struct.pack(">I", len(text)) + text for text in texts)
    assert sign(SIGNED) == "v1=" + hmac.new(key, message, "sha256").hexdigest()


def test_what_was_signed_is_genuine():
    assert is_genuine(sign(SIGNED), SIGNED)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Signed)])
@pytest.mark.parametrize("change", [lambda s: s + "x", lambda s: s[:-1], lambda s: "", lambda s: s.swapcase() + " "])
def test_every_field_is_covered(field, change):
    other = dataclasses.replace(SIGNED, **{field: change(getattr(SIGNED, field))})
    assert not is_genuine(sign(SIGNED), other)


def test_no_field_flows_into_the_next():
    names = [field.name for field in dataclasses.fields(Signed)]
    for left, right in itertools.pairwise(names):
        values = dataclasses.asdict(SIGNED)
        values[left], values[right] = values[left][:-1], values[left][-1] + values[right]
        assert not is_genuine(sign(SIGNED), Signed(**values))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: "",
        lambda s: "v1=",
        lambda s: s[:-1],
        lambda s: s + "0",
        lambda s: s + "\n",
        lambda s: " " + s,
        lambda s: s.upper(),
        lambda s: s.replace("v1", "v2"),
        lambda s: s.removeprefix("v1="),
        lambda s: f"{s},{s}",
        lambda s: f"{s}, {s}",
        lambda s: s[:-1] + "\u0661",
        lambda s: s[:-1] + "\xe9",
        lambda s: "v1=" + "\ud800" * 64,
        lambda s: "v1=" + "0" * 64,
        lambda s: "v1=" + "0" * 10**6,
    ],
)
def test_a_signature_of_another_form_is_none(spoil):
    assert not is_genuine(spoil(sign(SIGNED)), SIGNED)


def test_signatures_and_digests_are_compared_in_constant_time(monkeypatch):
    compared = []
    compare = signatures.constant_time_compare
    monkeypatch.setattr(signatures, "constant_time_compare", lambda *given: compared.append(given) or compare(*given))
    signature = sign(SIGNED)
    assert is_genuine(signature, SIGNED)
    assert is_body(b"x", digest(b"x"))
    assert not is_body(b"x", digest(b"y"))
    assert [len(left) for left, _ in compared] == [64, 64, 64]
    assert signature.endswith(compared[0][0])


def test_old_keys_are_accepted_while_they_are_listed(settings):
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old", []
    by_old = sign(SIGNED)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", "old"]
    assert is_genuine(by_old, SIGNED)
    by_new = sign(SIGNED)
    assert by_new != by_old
    settings.SECRET_KEY_FALLBACKS = []
    assert is_genuine(by_new, SIGNED)
    assert not is_genuine(by_old, SIGNED)
    settings.SECRET_KEY = b"new"
    assert is_genuine(by_new, SIGNED)


def test_an_empty_key_among_the_old_ones_opens_nothing(settings):
    settings.SECRET_KEY_FALLBACKS = ["", b""]
    forged = f"v1={signatures._mac(SIGNED, '')}"
    assert not is_genuine(forged, SIGNED)


def test_no_other_signature_of_the_site_fits():
    assert not is_genuine(f"v1={Signer(algorithm='sha256').signature(SIGNED.message())}", SIGNED)


def test_facts_travel_whole():
    before = time.monotonic()
    made = dataclasses.replace(MADE, deadline=before + 600)
    told, body = read_facts(write_facts(made, b"a=b", NOW), NOW)
    assert body == digest(b"a=b")
    same = dataclasses.replace(told, deadline=made.deadline, stopping=made.stopping, failures=made.failures)
    assert same == made
    assert 500 < told.deadline - before <= 600.1
    least, _ = read_facts(write_facts(Delivery(queue="q", name="n"), b"", NOW), NOW)
    assert (least.eta, least.previous_status, least.is_last_attempt, least.retry_count) == (None, None, False, 0)


def test_a_deadline_that_is_over_is_over_there_too():
    late = dataclasses.replace(MADE, deadline=time.monotonic() - 5)
    told, _ = read_facts(write_facts(late, b"", NOW), NOW)
    assert told.deadline <= time.monotonic()


@pytest.mark.parametrize("age", [0, 299, -299, 300, -300])
def test_five_minutes_are_fresh(age):
    read_facts(write_facts(MADE, b"", NOW), NOW + age)


@pytest.mark.parametrize("age", [301, -301, 1e6, -1e6, float("nan"), float("inf")])
def test_before_and_after_is_stale(age):
    with pytest.raises(StaleError):
        read_facts(write_facts(MADE, b"", NOW), NOW + age)


GOOD = json.loads(write_facts(MADE, b"", NOW))


WITHOUT = [{name: value for name, value in GOOD.items() if name != left} for left in set(GOOD) - {"eta", "previous"}]
WRONG = [{**GOOD, name: []} for name in set(GOOD) - {"last"}]
BAD = [
    *WITHOUT,
    *WRONG,
    {**GOOD, "queue": 5},
    {**GOOD, "body": "x"},
    {**GOOD, "eta": "tomorrow"},
    {**GOOD, "time": None},
]


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '"x"', "[" * 100_000, *sorted(map(json.dumps, BAD))], ids=len)
def test_facts_that_cannot_be_read_are_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with them
        read_facts(text, NOW)


@pytest.mark.parametrize(
    "path",
    ["/a/", "/a%20b/", "/%C3%BC/", "/%FC/", "/a%2Fb/", "/%25/", "/a;b=c/", "/a+b/", "/%e4%BD%A0/", "/a///b", "/a%"],
)
def test_a_path_is_signed_as_it_will_be_routed(path):
    assert unquote_path(path) == RequestFactory().post(path).path
