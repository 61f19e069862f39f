"""Calls that a token proves: to the last claim, or not at all; and what they cost the server of the keys."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.middleware.csrf import get_token
from django.test import Client, RequestFactory

from soc_tasks import is_in_cron, task
from soc_tasks.engine.clock import SECOND, FakeClock
from soc_tasks.views import cloud, oidc
from tests import site
from tests.live import serve, talk
from tests.views.calls import META, refused, route
from tests.views.tokens import ACCOUNT, CRON, HTTP, QUEUE, URL, Issuer, bearer, encode, make_key, sign, trust

FORM = "application/x-www-form-urlencoded"
PATHS = ["/tasks/behave/", "/tasks/superusers/", "/tasks/cron/", "/tasks/iterate/", "/guarded/"]


@pytest.fixture
def issuer(monkeypatch, settings):
    settings.SOC_TASKS = HTTP
    issuer = Issuer(FakeClock())
    trust(monkeypatch, issuer)
    return issuer


def call(headers, url="/tasks/behave/", body=b"a=b", method="POST"):
    return Client().generic(method, url, body, FORM, headers={"X-SocTasks-Meta": META, **headers})


def test_a_token_proves_the_call_and_the_headers_tell_of_it(issuer, site_calls):
    told = {
        **QUEUE,
        "X-CloudTasks-TaskRetryCount": "3",
        "X-CloudTasks-TaskExecutionCount": "2",
        "X-CloudTasks-TaskETA": "1800000000.250000",
        "X-CloudTasks-TaskPreviousResponse": "503",
    }
    response = call(bearer(issuer.token(), told))
    assert (response.status_code, response.content) == (200, b"")
    [(_, request, _)] = site_calls
    info = request.task
    assert (info.queue, info.name, info.retry_count, info.execution_count) == ("default", "made", 3, 2)
    assert (info.eta.timestamp(), info.previous_status) == (1800000000.25, 503)
    assert info.context == {"a": "b"}
    assert not is_in_cron()


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "accounts.google.com"},
        {"nbf": 1_800_000_000},
        {"iat": 1_800_000_010, "exp": 1_800_003_610},
        {"iat": 1_799_996_395, "exp": 1_799_999_995},
        {"exp": 1_800_003_610},
        {"extra": {"a": [1]}, "azp": ...},
    ],
    ids=repr,
)
def test_what_a_token_may_be(issuer, site_calls, claims):
    assert call(bearer(issuer.token(**claims))).status_code == 200
    assert len(site_calls) == 1


NOW = FakeClock().now() // SECOND
CLAIMS = {
    "issuer missing": {"iss": ...},
    "issuer other": {"iss": "https://evil.example"},
    "issuer a part": {"iss": "https://accounts.google.co"},
    "issuer a part, short": {"iss": "google.com"},
    "issuer longer": {"iss": "https://accounts.google.com/"},
    "issuer by http": {"iss": "http://accounts.google.com"},
    "issuer a list": {"iss": ["https://accounts.google.com"]},
    "issuer null": {"iss": None},
    "audience missing": {"aud": ...},
    "audience other": {"aud": "https://evil.example"},
    "audience longer": {"aud": f"{URL}/"},
    "audience a part": {"aud": URL[:-1]},
    "audience a list": {"aud": [URL]},
    "audience null": {"aud": None},
    "audience empty": {"aud": ""},
    "e-mail missing": {"email": ...},
    "e-mail foreign": {"email": "queue@other.iam.gserviceaccount.com"},
    "e-mail in other case": {"email": ACCOUNT.upper()},
    "e-mail of cron": {"email": CRON},
    "e-mail empty": {"email": ""},
    "e-mail null": {"email": None},
    "e-mail a list": {"email": [ACCOUNT]},
    "not verified": {"email_verified": False},
    "verified missing": {"email_verified": ...},
    "verified a string": {"email_verified": "true"},
    "verified a number": {"email_verified": 1},
    "expired": {"iat": NOW - 3611, "exp": NOW - 11},
    "exp a string": {"exp": str(NOW + 3600)},
    "exp a fraction": {"exp": NOW + 3600.0},
    "exp missing": {"exp": ...},
    "exp true": {"exp": True},
    "exp endless": {"exp": 10**18},
    "exp more than an hour ahead": {"exp": NOW + 3611},
    "exp before iat": {"iat": NOW + 5, "exp": NOW + 1},
    "iat missing": {"iat": ...},
    "iat a string": {"iat": str(NOW)},
    "iat in the future": {"iat": NOW + 11, "exp": NOW + 3611},
    "iat long ago": {"iat": 0},
    "nbf in the future": {"nbf": NOW + 11},
    "nbf a string": {"nbf": str(NOW)},
    "nbf null": {"nbf": None},
}


def forge(header=None, *, key="k1", claims=None):
    def make(issuer):
        head = {name: value for name, value in {**issuer.header(), **(header or {})}.items() if value is not ...}
        return bearer(sign(head, issuer.claims(**(claims or {})), key))

    return make


def spoil(change):
    return lambda issuer: {**QUEUE, "Authorization": change(f"Bearer {issuer.token()}")}


def other_payload(header):
    """Another payload under a real signature."""
    head, _, signature = header.split(".")
    claims = {"iss": "https://accounts.google.com", "aud": URL, "email": ACCOUNT, "email_verified": True}
    return f"{head}.{encode({**claims, 'iat': NOW, 'exp': NOW + 3599})}.{signature}"


TOKENS = {
    "alg none": forge({"alg": "none"}, key=None),
    "alg none, signed": forge({"alg": "none"}),
    "alg None": forge({"alg": "None"}, key=None),
    "alg missing": forge({"alg": ...}),
    "HS256 by the certificate": forge({"alg": "HS256"}),
    "RS512 by name": forge({"alg": "RS512"}),
    "alg in other case": forge({"alg": "rs256"}),
    "signed by a stranger": forge(key="stranger"),
    "signed by a stranger under its kid": forge({"kid": "stranger"}, key="stranger"),
    "a kid of another key": forge({"kid": "k2"}),
    "no kid": forge({"kid": ...}),
    "empty kid": forge({"kid": ""}),
    "a kid that is a number": forge({"kid": 1}),
    "a kid that is a list": forge({"kid": ["k1"]}),
    "a long kid": forge({"kid": "k" * 201}),
    "a key of its own": forge({"kid": ..., "jwk": {"kty": "RSA"}, "x5u": "https://evil.example"}, key="stranger"),
    "critical": forge({"crit": ["exp"], "exp": 1}),
    "other payload": spoil(other_payload),
    "signature truncated": spoil(lambda header: header[:-8]),
    "signature missing": spoil(lambda header: header.rpartition(".")[0]),
    "signature empty": spoil(lambda header: header.rpartition(".")[0] + "."),
    "signature longer": spoil(lambda header: header + "AAAA"),
    "signature removed": spoil(lambda header: header.rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE"),
    "truncated": spoil(lambda header: header[:100]),
    "four parts": spoil(lambda header: header + ".x"),
    "no scheme": spoil(lambda header: header.removeprefix("Bearer ")),
    "other scheme": spoil(lambda header: header.replace("Bearer", "Basic")),
    "two spaces": spoil(lambda header: header.replace(" ", "  ")),
    "space behind": spoil(lambda header: header + " x"),
    "two headers as servers join them": spoil(lambda header: f"{header},{header}"),
    "two headers, one bad": spoil(lambda header: f"{header}, Bearer x.y.z"),
    "padded": spoil(lambda header: header + "=="),
    "non-ASCII": spoil(lambda header: header[:-1] + "\xe9"),
    "non-ASCII digit": spoil(lambda header: header[:-1] + "\xb2"),
    "over-long": spoil(lambda header: header + "A" * 8000),
    "no JSON": spoil(lambda header: f"Bearer {encode(b'x')}.{encode(b'x')}.{encode(b'x')}"),
    "no object": spoil(lambda header: f"Bearer {encode([])}.{encode([])}.{encode(b'x')}"),
    "deep": spoil(lambda header: f"Bearer {encode(b'[' * 5000)}.e30.AAAA"),
    "a long number": spoil(lambda header: f"Bearer {encode(b'1' * 5000)}.e30.AAAA"),
    "bytes that are no text": spoil(lambda header: f"Bearer {encode(bytes([255, 254]))}.e30.AAAA"),
    "a length that base64 does not have": spoil(lambda header: "Bearer A.e30.AAAA"),
    "a payload that is none": lambda issuer: bearer(sign(issuer.header(), b"[]")),
    "a payload that is deep": lambda issuer: bearer(sign(issuer.header(), b"[" * 4000)),
    "no header": lambda issuer: QUEUE,
    "an empty header": lambda issuer: {**QUEUE, "Authorization": ""},
    "an X-Serverless-Authorization": lambda issuer: {
        **QUEUE,
        "X-Serverless-Authorization": f"Bearer {issuer.token()}",
    },
    **{name: forge(claims=claims) for name, claims in CLAIMS.items()},
}


@pytest.mark.parametrize("url", PATHS)
@pytest.mark.parametrize("make", TOKENS.values(), ids=TOKENS)
def test_a_token_that_differs_in_anything_proves_nothing(issuer, site_calls, make, url, caplog):
    issuer.kids = ["k1", "k2"]
    headers = make(issuer)
    assert refused(call(headers, url))
    # Nor is it cron's, where the queue's header is left out.
    bare = {name: value for name, value in headers.items() if not name.startswith("X-CloudTasks")}
    assert refused(call(bare, url))
    assert site_calls == []
    assert not [record for record in caplog.records if record.exc_info]


def test_two_headers_over_a_real_connection(issuer, site_calls):
    token = f"Bearer {issuer.token()}"
    pairs = [*QUEUE.items(), ("Content-Type", FORM), ("X-SocTasks-Meta", META), ("Authorization", token)]
    with serve() as server:
        assert talk(server, "/tasks/behave/", pairs, b"a=b")[0] == 200
        for second in (token, "Basic eDp4", "\xe9"):
            status, _, body = talk(server, "/tasks/behave/", [*pairs, ("Authorization", second)], b"a=b")
            assert (status, body) == (403, b"")
    assert len(site_calls) == 1


@pytest.mark.parametrize(
    "given",
    [
        {**HTTP, "SERVICE_ACCOUNT": None},
        {**HTTP, "SERVICE_ACCOUNT": ""},
        {**HTTP, "SERVICE_ACCOUNT": "other@project.iam.gserviceaccount.com"},
        {**HTTP, "URL": None},
        {**HTTP, "AUDIENCE": "https://other.example"},
        {**HTTP, "OIDC_ISSUER": "https://other.example"},
        {**HTTP, "TARGET": "app_engine"},
        {**HTTP, "BACKEND": "embedded"},
        {**HTTP, "BACKEND": "memory"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("gae", ["standard", None])
def test_nothing_is_proven_where_the_settings_say_otherwise(issuer, site_calls, settings, given, gae, monkeypatch):
    if gae:
        monkeypatch.setenv("GAE_ENV", gae)
    settings.SOC_TASKS = given
    for url in PATHS:
        assert refused(call(bearer(issuer.token()), url))
        assert refused(call(bearer(issuer.token(email="")), url))
    assert site_calls == []


def test_audience_and_issuer_are_as_they_are_set(issuer, site_calls, settings):
    settings.SOC_TASKS = {**HTTP, "URL": f"{URL}/"}
    assert call(bearer(issuer.token())).status_code == 200
    settings.SOC_TASKS = {**HTTP, "AUDIENCE": "tasks of ours", "OIDC_ISSUER": "http://localhost:8123"}
    assert call(bearer(issuer.token(aud="tasks of ours", iss="http://localhost:8123"))).status_code == 200
    # Google itself is not trusted beside it.
    assert refused(call(bearer(issuer.token(aud="tasks of ours"))))
    assert len(site_calls) == 2


@pytest.mark.parametrize("queue", ["", "other", "default,default", "../default", "defaul\xe9", "DEFAULT", "__cron"])
def test_a_queue_that_is_not_configured_is_not_let_in(issuer, site_calls, queue):
    for url in PATHS:
        assert refused(call(bearer(issuer.token(), {"X-CloudTasks-QueueName": queue}), url))
    assert site_calls == []


JUNK = ["x", "", "-1", "1e3", "9" * 5000, "\xb2", "1.5.5", "nan", "inf", "0x10", " 1"]


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_unknown(issuer, site_calls, junk):
    names = ("TaskRetryCount", "TaskExecutionCount", "TaskETA", "TaskPreviousResponse")
    told = {**QUEUE, **{f"X-CloudTasks-{name}": junk for name in names}, "X-CloudTasks-TaskName": f"a b{junk}"}
    assert call(bearer(issuer.token(), told)).status_code == 200
    [(_, request, _)] = site_calls
    info = request.task
    assert (info.name, info.retry_count, info.execution_count) == ("", 0, 0)
    assert (info.eta, info.previous_status) == (None, None)


def test_without_a_token_the_headers_prove_nothing(issuer, site_calls):
    for headers in (QUEUE, {**QUEUE, "User-Agent": "Google-Cloud-Tasks"}, {"X-CloudScheduler": "true"}):
        for url in PATHS:
            assert refused(call(headers, url))
    assert site_calls == []
    assert issuer.fetched == 0


# Cron


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_scheduler_starts_a_task(issuer, task_queues, settings, site_calls, method):
    settings.SOC_TASKS = {**HTTP, "CRON_SERVICE_ACCOUNT": CRON}
    headers = {"X-CloudScheduler": "true", "X-CloudScheduler-JobName": "nightly"}
    response = call(bearer(issuer.token(email=CRON), headers), "/tasks/cron/", b"", method)
    assert (response.status_code, response.content) == (202, b"")
    assert site_calls == []
    task_queues.process_task_queues()
    assert len(site_calls) == 1
    # It is not the queue, even if it says so, and the queue is not cron.
    for url in PATHS:
        assert refused(call(bearer(issuer.token(email=CRON)), url))
        assert refused(call(bearer(issuer.token(), {}), url))
    assert refused(call(bearer(issuer.token()), "/tasks/cron/"))
    assert refused(call(bearer(issuer.token(email=CRON), {}), "/tasks/behave/"))
    assert call(bearer(issuer.token(email=CRON), {}), "/guarded/").content == b"hello"


def test_without_an_account_of_its_own_the_scheduler_has_the_queues(issuer, task_queues, site_calls):
    assert call(bearer(issuer.token(), {}), "/tasks/cron/").status_code == 202
    assert refused(call(bearer(issuer.token(), {}), "/tasks/behave/"))
    task_queues.assertNumTasksEquals(1)
    assert site_calls == []


def test_the_scheduler_calls_an_app_engine_site_by_token(issuer, task_queues, settings, site_calls):
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks", "CRON_SERVICE_ACCOUNT": CRON, "AUDIENCE": URL}
    assert call(bearer(issuer.token(email=CRON), {}), "/tasks/cron/").status_code == 202
    assert refused(call(bearer(issuer.token(email=CRON)), "/tasks/cron/"))
    assert refused(call(bearer(issuer.token(email=CRON)), "/tasks/behave/"))


# Keys


def test_keys_are_fetched_once_for_a_thousand_checks(issuer, site_calls):
    headers = bearer(issuer.token())
    for _ in range(1000):
        request = RequestFactory().post("/", headers=headers)
        assert cloud.judge_cloud(request).delivery is not None
    assert issuer.fetched == 1


def test_a_request_is_judged_once(issuer, monkeypatch, site_calls):
    judged = []
    read = oidc.read_email
    monkeypatch.setattr(cloud, "read_email", lambda *given, **more: judged.append(given) or read(*given, **more))
    assert call(bearer(issuer.token())).status_code == 200
    assert refused(call(bearer(issuer.token(aud="x")), "/tasks/superusers/"))
    assert len(judged) == 2


def test_random_key_ids_cause_a_fetch_a_minute_at_most(issuer, site_calls):
    assert call(bearer(issuer.token())).status_code == 200
    random, minutes = Random(1), 0
    for number in range(1000):
        if number % 100 == 99:
            issuer.clock.advance(60)
            minutes += 1
        kid = f"{random.getrandbits(160):040x}"
        request = RequestFactory().post("/", headers=bearer(sign(issuer.header(kid=kid), {}, None) + "AAAA"))
        assert cloud.judge_cloud(request) == (None, False, 403)
    assert issuer.fetched <= 1 + minutes
    # Those that are known need none.
    issuer.clock.advance(1)
    assert call(bearer(issuer.token())).status_code == 200


def test_a_new_key_is_found_within_a_minute(issuer, site_calls):
    assert call(bearer(issuer.token())).status_code == 200
    issuer.kids = ["k1", "k2"]

    def by_new():
        return call(bearer(sign(issuer.header(kid="k2"), issuer.claims(), "k2")))

    assert refused(by_new())
    issuer.clock.advance(60)
    assert by_new().status_code == 200
    assert issuer.fetched == 2


def test_keys_are_kept_as_long_as_their_server_says(issuer, site_calls):
    def ask(seconds):
        issuer.clock.advance(seconds)
        assert call(bearer(issuer.token())).status_code == 200
        return issuer.fetched

    assert ask(0) == 1
    assert ask(19_999) == 1
    assert ask(1) == 2
    # A key that was withdrawn is one no more.
    issuer.kids = ["k2"]
    issuer.clock.advance(20_000)
    assert refused(call(bearer(issuer.token())))


@pytest.mark.parametrize(("keep", "kept"), [(0, 60), (-5, 60), (10**9, 86400)])
def test_keys_are_kept_for_a_minute_at_least_and_for_a_day_at_most(issuer, keep, kept):
    issuer.keep = keep
    keys = oidc.Keys(issuer.fetch, issuer.clock.monotonic)
    keys.find("k1")
    issuer.clock.advance(kept - 1)
    keys.find("k1")
    assert issuer.fetched == 1
    issuer.clock.advance(1)
    keys.find("k1")
    assert issuer.fetched == 2


def test_old_keys_serve_for_a_day_while_there_are_no_new_ones(issuer, site_calls):
    assert call(bearer(issuer.token())).status_code == 200
    issuer.down = True
    issuer.clock.advance(20_000)
    for _ in range(10):
        assert call(bearer(issuer.token())).status_code == 200
    # Tried once, and again in a minute.
    assert issuer.fetched == 2
    issuer.clock.advance(86_399)
    assert call(bearer(issuer.token())).status_code == 200
    issuer.clock.advance(1)
    answer = call(bearer(issuer.token()))
    assert (answer.status_code, answer.content) == (500, b"")
    issuer.down = False
    issuer.clock.advance(60)
    assert call(bearer(issuer.token())).status_code == 200


@pytest.mark.parametrize("url", PATHS)
def test_without_any_keys_a_call_comes_again(issuer, site_calls, url):
    issuer.down = True
    for _ in range(5):
        answer = call(bearer(issuer.token()), url)
        assert (answer.status_code, answer.content) == (500, b"")
        assert not answer.has_header("X-SocTasks-Outcome")
    assert issuer.fetched == 1
    # What could be no token whoever signed it is refused all the same.
    assert refused(call(bearer(sign(issuer.header(alg="none"), issuer.claims(), None) + "AAAA"), url))
    assert site_calls == []
    issuer.clock.advance(5)
    issuer.down = False
    if url == "/tasks/behave/":
        assert call(bearer(issuer.token()), url).status_code == 200


@pytest.mark.parametrize("certificates", [None, [], {}, "x", {"k1": "x"}, {"k1": None}, {"k1": ["x"]}], ids=repr)
def test_keys_that_are_none_are_like_no_answer(issuer, site_calls, monkeypatch, certificates):
    keys = oidc.Keys(lambda: (certificates, 60), issuer.clock.monotonic)
    monkeypatch.setattr(cloud, "get_keys", lambda url: keys)
    assert call(bearer(issuer.token())).status_code == 500
    assert site_calls == []


def test_a_key_of_another_kind_verifies_nothing(issuer, site_calls, monkeypatch):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    keys = oidc.Keys(lambda: ({"k1": pem.decode()}, 60), issuer.clock.monotonic)
    monkeypatch.setattr(cloud, "get_keys", lambda url: keys)
    assert refused(call(bearer(issuer.token())))


def test_one_thread_fetches_for_all():
    clock, entered, gate = FakeClock(), threading.Semaphore(0), threading.Event()
    fetched = []

    def fetch():
        fetched.append(threading.get_ident())
        entered.release()
        assert gate.wait(30)
        return {"k1": make_key("k1")[1]}, 600

    keys = oidc.Keys(fetch, clock.monotonic)
    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(keys.find, "k1") for _ in range(8)]
        assert entered.acquire(timeout=30)
        gate.set()
        assert len({id(each.result(30)) for each in found}) == 1
        assert len(fetched) == 1
        # Where an old key serves, nobody waits for the one that fetches.
        gate.clear()
        clock.advance(600)
        slow = threads.submit(keys.find, "k1")
        assert entered.acquire(timeout=30)
        assert all(threads.submit(keys.find, "k1").result(30) for _ in range(20))
        gate.set()
        slow.result(30)
    assert len(fetched) == 2


def test_threads_of_forged_calls_among_real_ones(issuer, site_calls):
    handler = WSGIHandler()
    issuer.kids = ["k1", "k2"]
    forged = [make(issuer) for make in TOKENS.values()]
    real = bearer(issuer.token())
    ran = []

    @task
    def view(request):
        ran.append(request.POST["who"])

    def send(headers, who):
        request = RequestFactory().generic(
            "POST", "/view/", f"who={who}".encode(), FORM, headers={"X-SocTasks-Meta": META, **headers}
        )
        answers = []
        list(handler(request.environ, lambda status, headers: answers.append(int(status[:3]))))
        return answers[0]

    def work(number):
        random = Random(number)
        return [send(random.choice(forged), "forged") if index % 6 else send(real, "real") for index in range(300)]

    with route(view, MIDDLEWARE=["django.middleware.common.CommonMiddleware"]), ThreadPoolExecutor(8) as threads:
        statuses = [status for part in threads.map(work, range(8)) for status in part]
    assert (statuses.count(200), statuses.count(403)) == (400, 2000)
    assert ran == ["real"] * 400
    assert issuer.fetched <= 2


# The server of the keys


def key_server(answers):
    """An application that answers with each of `answers` in turn: status, headers, body."""
    asked = []

    def app(environ, start_response):
        status, headers, body = answers[len(asked)]
        asked.append(environ["PATH_INFO"])
        start_response(status, headers)
        return [body]

    return app, asked


def test_keys_come_from_the_server_that_the_settings_name(settings, site_calls, monkeypatch):
    """All of it as it is in production, but for the address: a server, its certificates, the clocks of the machine."""
    import json

    body = json.dumps({"k1": make_key("k1")[1]}).encode()
    app, asked = key_server([("200 OK", [("Cache-Control", "public, max-age=600")], body)])
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serve(app) as server:
        settings.SOC_TASKS = {**HTTP, "OIDC_ISSUER": server.url, "OIDC_CERTS_URL": f"{server.url}/certs"}
        now = int(time.time())
        issuer = Issuer(FakeClock(now * SECOND))
        for _ in range(3):
            assert call(bearer(issuer.token(iss=server.url))).status_code == 200
        assert refused(call(bearer(issuer.token())))
        assert refused(call(bearer(issuer.token(iss=server.url, exp=now - 60, iat=now - 100))))
    assert asked == ["/certs"]
    assert len(site_calls) == 3


@pytest.mark.parametrize(
    ("headers", "keep"),
    [
        ([("Cache-Control", "public, max-age=19543, must-revalidate, no-transform")], 19543),
        ([("Cache-Control", "max-age=600"), ("Age", "100")], 500),
        ([("Cache-Control", "s-maxage=600")], 0),
        ([("Cache-Control", "max-age=x")], 0),
        ([], 0),
    ],
)
def test_what_the_server_of_the_keys_says_of_keeping(headers, keep):
    app, _ = key_server([("200 OK", headers, b'{"a": "b"}')])
    with serve(app) as server:
        assert oidc.fetch_certificates(f"{server.url}/certs") == ({"a": "b"}, keep)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        ("302 Found", [("Location", "https://evil.example/")], b""),
        ("404 Not Found", [], b""),
        ("500 Internal Server Error", [], b"{}"),
        ("200 OK", [], b""),
        ("200 OK", [], b"<html>"),
        ("200 OK", [], b" " * 1_000_001),
    ],
)
def test_answers_that_hold_no_keys(status, headers, body):
    app, _ = key_server([(status, headers, body)])
    with serve(app) as server, pytest.raises((OSError, ValueError)):
        oidc.fetch_certificates(server.url)


def test_nobody_listens_where_the_keys_should_be():
    with pytest.raises(OSError, match="refused"):
        oidc.fetch_certificates("http://127.0.0.1:1/certs")


def test_each_url_has_its_keys():
    first, second = oidc.get_keys("https://a.example/certs"), oidc.get_keys("https://b.example/certs")
    assert first is oidc.get_keys("https://a.example/certs")
    assert first is not second


def test_a_session_is_judged_beside_tokens(issuer, db, task_queues):
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create(username="u", is_superuser=True))
    client.cookies["csrftoken"] = token = get_token(RequestFactory().get("/"))
    form = {"csrfmiddlewaretoken": token}
    assert client.post("/tasks/superusers/", form).status_code == 202
    assert client.post("/tasks/superusers/", form, headers={"Authorization": "Basic eDp4"}).status_code == 202
    assert client.post("/tasks/behave/", form).status_code == 403
    site.calls.clear()
