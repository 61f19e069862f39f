"""Signed calls to a real server: what is let in, and that nothing else is, however it comes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from django.test import Client

from soc_tasks import signatures, task, task_only
from soc_tasks.meta import Meta
from soc_tasks.values import DELIVERY_HEADER, META_HEADER, SIGNATURE_HEADER
from tests import site
from tests.live import FORM, META, serve, sign_headers, talk
from tests.views.calls import route

PATH = "/tasks/behave/"
BODY = b"a=b"


@pytest.fixture
def server():
    with serve() as server:
        yield server


def is_refused(answer):
    status, head, body = answer
    return status == 403 and body == b"" and b"x-soctasks" not in head.lower()


def change(headers, **values):
    """Return the headers with some facts changed, the signature left as it was."""
    return {**headers, DELIVERY_HEADER: json.dumps({**json.loads(headers[DELIVERY_HEADER]), **values})}


def test_a_signed_call_runs_and_knows_what_it_would_know_in_process(server, site_calls):
    eta = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    left = []
    site.behaviours["behave"] = lambda request, **_: left.append(request.task.time_left())
    meta = Meta(start_id="ab" * 16, json_keys=("n",)).to_header()
    told = {"retry_count": 2, "execution_count": 1, "eta": eta, "previous_status": 504, "is_last_attempt": True}
    body = b"n=5&t=x"
    headers = sign_headers(
        f"{PATH}?q=1", body, queue="mail", name="nightly", meta=meta, deadline=time.monotonic() + 12, **told
    )
    assert talk(server, f"{PATH}?q=1", headers, body)[0] == 200
    [(_, request, _)] = site_calls
    info = request.task
    assert {name: getattr(info, name) for name in told} == told
    assert (info.queue, info.name, info.start_id) == ("mail", "nightly", "ab" * 16)
    assert (info.context, dict(request.GET.lists())) == ({"n": 5, "t": "x"}, {"q": ["1"]})
    assert timedelta(seconds=5) < left[0] <= timedelta(seconds=12)


@pytest.mark.parametrize(
    "target",
    [
        "/tasks/behave/a/?x=%20+%C3%BC&y",
        "/tasks/behave/%61/",
        "/tasks/beh%61ve/?",
        "/tasks/behave/?a=100%",
        "/tasks/behave/?%c3%bc",
    ],
)
def test_a_path_may_be_spelled_as_it_will(server, site_calls, target):
    assert talk(server, target, sign_headers(target))[0] == 200
    assert len(site_calls) == 1


def test_every_fact_is_signed(server, site_calls):
    headers = sign_headers(PATH, BODY, previous_status=500, eta=datetime.now(UTC))
    assert talk(server, PATH, headers, BODY)[0] == 200
    facts = json.loads(headers[DELIVERY_HEADER])
    assert set(facts) >= {"queue", "task", "attempt", "responses", "last", "seconds", "time", "body", "eta", "previous"}
    for name, value in facts.items():
        other = not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 1
        assert is_refused(talk(server, PATH, change(headers, **{name: other}), BODY)), name
        assert is_refused(talk(server, PATH, change(headers, extra=1), BODY))
    assert len(site_calls) == 1


OTHER_META = Meta(start_id="1" * 32).to_header()
OTHERS = {
    "path": {"target": "/tasks/behave/other/"},
    "query": {"target": f"{PATH}?a=b"},
    "empty query": {"target": f"{PATH}?x"},
    "body": {"body": b"a=c"},
    "longer body": {"body": b"a=bc"},
    "empty body": {"body": b""},
    "meta": {META_HEADER: OTHER_META},
    "admitted": {META_HEADER: Meta(start_id="0" * 32, admitted=True).to_header()},
    "content type": {"Content-Type": "application/json"},
    "no meta": {META_HEADER: None},
    "no facts": {DELIVERY_HEADER: None},
    "no signature": {SIGNATURE_HEADER: None},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_everything_that_is_believed_is_signed(server, site_calls, other):
    headers, other = sign_headers(PATH, BODY), dict(other)
    target, body = other.pop("target", PATH), other.pop("body", BODY)
    headers = {name: value for name, value in {**headers, **other}.items() if value is not None}
    assert is_refused(talk(server, target, headers, body))
    assert site_calls == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_another_method_is_not_allowed_whatever_is_signed(server, site_calls, method):
    assert talk(server, PATH, sign_headers(PATH, method=method), method=method)[0] == 405
    assert talk(server, PATH, sign_headers(PATH), method=method)[0] == 405
    assert site_calls == []


def test_the_method_is_signed(server, site_calls):
    assert is_refused(talk(server, PATH, sign_headers(PATH, method="PUT")))
    assert is_refused(talk(server, "/guarded/", sign_headers("/guarded/"), method="PUT"))
    assert site_calls == []


def spoiled(spoil):
    def make():
        headers = sign_headers(PATH, BODY)
        return {**headers, SIGNATURE_HEADER: spoil(headers[SIGNATURE_HEADER])}

    return make


def doubled(*names, values=None):
    def make():
        headers = sign_headers(PATH, BODY)
        return [*headers.items(), *((name, (values or headers).get(name, "x")) for name in names)]

    return make


def with_authorization(*values):
    return lambda: [*sign_headers(PATH, BODY).items(), *(("Authorization", value) for value in values)]


BAD = {
    "truncated": spoiled(lambda s: s[:-1]),
    "empty": spoiled(lambda s: ""),
    "half": spoiled(lambda s: s[:10]),
    "non-ASCII": spoiled(lambda s: s[:-1] + "\xe9"),
    "non-ASCII digits": spoiled(lambda s: s[:-1] + "\xb2"),
    "of zeros": spoiled(lambda s: "v1=" + "0" * 64),
    "other version": spoiled(lambda s: s.replace("v1", "v2")),
    "long": spoiled(lambda s: s * 500),
    "stale": lambda: sign_headers(PATH, BODY, now=time.time() - 400),
    "future": lambda: sign_headers(PATH, BODY, now=time.time() + 400),
    "two signatures": doubled(SIGNATURE_HEADER),
    "two signatures, one foreign": doubled(SIGNATURE_HEADER, values={SIGNATURE_HEADER: "v1=" + "0" * 64}),
    "two facts": doubled(DELIVERY_HEADER),
    "two metas": doubled(META_HEADER),
    "two of all": doubled(DELIVERY_HEADER, META_HEADER, SIGNATURE_HEADER),
    "non-ASCII facts": lambda: {**sign_headers(PATH, BODY), DELIVERY_HEADER: '{"queue":"\xe9"}'},
    "long facts": lambda: {**sign_headers(PATH, BODY), DELIVERY_HEADER: "[" * 30_000},
    "Authorization": with_authorization("Basic eDp4"),
    "two Authorizations": with_authorization("Basic eDp4", "Bearer x"),
    "two Authorizations alone": lambda: [("Authorization", "Bearer x"), ("Authorization", "Bearer y")],
    "a bad Authorization": with_authorization("\xe9"),
}


@pytest.mark.parametrize("path", [PATH, "/tasks/iterate/", "/tasks/superusers/", "/guarded/", "/guarded-or-superuser/"])
@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_bad_signatures_are_refused_without_a_word(server, site_calls, caplog, make, path, monkeypatch):
    monkeypatch.setattr("tests.views.test_signed_access.PATH", path)
    assert is_refused(talk(server, path, make(), BODY))
    assert site_calls == []
    assert not [record for record in caplog.records if record.exc_info]


def test_a_body_of_another_host_does_not_matter_but_the_host_is_djangos(server):
    headers = [*sign_headers(PATH, BODY).items(), ("X-Forwarded-For", "10.0.0.1")]
    assert talk(server, PATH, headers, BODY)[0] == 200


# What is too long is refused before it is read; talk() sends nothing, and would wait for ever.


@pytest.mark.parametrize("path", [PATH, "/guarded/"])
@pytest.mark.parametrize("good", [True, False])
def test_a_body_that_is_too_long_is_refused_unread(server, site_calls, path, good):
    headers = sign_headers(path) if good else {"Content-Type": FORM}
    status, _, _ = talk(server, path, headers, length=100_000_000, half_close=False)
    assert status == (413 if good or path == PATH else 403)
    assert site_calls == []


def test_a_body_that_is_not_the_queues_is_refused_unread(server, site_calls):
    headers = {**sign_headers(PATH, BODY), SIGNATURE_HEADER: "v1=" + "0" * 64}
    assert talk(server, PATH, headers, length=1_000_000, half_close=False)[0] == 403
    stale = sign_headers(PATH, BODY, now=time.time() - 301)
    assert talk(server, PATH, stale, length=1_000_000, half_close=False)[0] == 403
    assert site_calls == []


@pytest.mark.parametrize(("length", "status"), [("x", 400), ("-1", 400), ("9" * 5000, 413)])
def test_a_length_that_is_none(server, site_calls, length, status):
    # The server itself takes no such header: the request goes to the site alone.
    response = Client().generic("POST", PATH, headers=sign_headers(PATH), CONTENT_LENGTH=length)
    assert response.status_code == status
    guarded = Client().generic(
        "POST", "/guarded/", BODY, headers=sign_headers("/guarded/", BODY), CONTENT_LENGTH=length
    )
    assert guarded.status_code == status
    assert site_calls == []


@pytest.mark.parametrize("path", [PATH, "/tasks/superusers/", "/guarded/", "/guarded-or-superuser/"])
@pytest.mark.parametrize("sent", [b"", b"a=", b"a=b"])
def test_a_body_that_breaks_off_comes_again(server, site_calls, path, sent):
    status, head, body = talk(server, path, sign_headers(path, b"a=bcd"), sent, length=5)
    assert (status, body) == (500, b"")
    assert b"x-soctasks" not in head.lower()
    assert site_calls == []


def test_who_is_in_the_rule_only(server, site_calls):
    """The queue's signature opens nothing that the queue may not enter."""
    for path in ("/tasks/staff/", "/tasks/cron/"):
        assert is_refused(talk(server, path, sign_headers(path)))
    assert talk(server, "/guarded/", sign_headers("/guarded/"))[2].endswith(b"hello")
    assert talk(server, "/guarded-or-superuser/", sign_headers("/guarded-or-superuser/"))[0] == 200
    assert len(site_calls) == 2


@pytest.mark.parametrize("backend", ["memory", "cloud_tasks"])
def test_another_backend_believes_no_signature(server, site_calls, settings, backend):
    settings.SOC_TASKS = {"BACKEND": backend}
    assert is_refused(talk(server, PATH, sign_headers(PATH, BODY), BODY))
    assert site_calls == []


def test_keys_are_changed_without_a_refusal(server, site_calls, settings):
    settings.SECRET_KEY = "old"
    by_old = sign_headers(PATH, BODY)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
    by_new = sign_headers(PATH, BODY)
    for headers in (by_old, by_new):
        assert talk(server, PATH, headers, BODY)[0] == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert talk(server, PATH, by_new, BODY)[0] == 200
    assert is_refused(talk(server, PATH, by_old, BODY))


def test_a_signature_is_judged_once_for_each_request(monkeypatch, site_calls):
    judged = []
    judge = signatures.is_genuine
    monkeypatch.setattr("soc_tasks.views.signed.is_genuine", lambda *given: judged.append(given) or judge(*given))
    assert Client().generic("POST", PATH, BODY, FORM, headers=sign_headers(PATH, BODY)).status_code == 200
    assert is_bad(Client().generic("POST", PATH, BODY, FORM, headers=sign_headers(PATH, b"other")))
    assert len(judged) == 2


def is_bad(response):
    return response.status_code == 403 and response.content == b""


def remember(request):
    site.calls.append(request)


def test_a_middleware_that_has_read_the_form_does_no_harm(site_calls):
    def view(request):
        assert request.POST["a"] == "b"
        return task(remember)(request)

    view.csrf_exempt = True
    with route(view):
        answer = Client().generic("POST", "/view/", BODY, FORM, headers=sign_headers("/view/", BODY))
    assert answer.status_code == 200
    assert len(site_calls) == 1


def test_a_multipart_form_that_was_read_is_refused(site_calls):
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
    kind = "multipart/form-data; boundary=x"

    def view(request):
        assert request.POST["a"] == "b"
        return task_only(remember)(request)

    view.csrf_exempt = True
    with route(view):
        headers = sign_headers("/view/", part, content_type=kind)
        assert is_bad(Client().generic("POST", "/view/", part, kind, headers=headers))
    assert site_calls == []


def test_a_script_prefix_is_part_of_the_path(site_calls):
    for signed, status in (("/prefix" + PATH, 200), (PATH, 403)):
        headers = sign_headers(signed, BODY)
        answer = Client().generic("POST", PATH, BODY, FORM, headers=headers, SCRIPT_NAME="/prefix")
        assert answer.status_code == status


def test_the_same_call_again_is_judged_by_its_start_id(db, site_calls):
    """A signature holds for minutes: an atomic task runs once all the same, a plain one as often as it comes."""
    for path, calls in (("/tasks/atomic/", 1), (PATH, 3)):
        site_calls.clear()
        headers = sign_headers(path, BODY, meta=META)
        for _ in range(3):
            assert Client().generic("POST", path, BODY, FORM, headers=headers).status_code == 200
        assert len(site_calls) == calls


def test_nobody_without_the_key_gets_in(site_calls, settings):
    """What an outsider can do: name any queue, sign with what is public, or with nothing."""
    keys = ["", "x", "django-insecure-", settings.ROOT_URLCONF, signatures.SALT]
    for key, now in product(keys, (None, time.time() + 100)):
        right, settings.SECRET_KEY = settings.SECRET_KEY, key or "empty"
        headers = sign_headers(PATH, BODY, now=now)
        settings.SECRET_KEY = right
        assert is_bad(Client().generic("POST", PATH, BODY, FORM, headers=headers))
    assert site_calls == []
