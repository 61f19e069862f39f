"""Settings: each key typed, in range, and followed as soon as it changes."""

from __future__ import annotations

import dataclasses

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from soc_tasks import ConfigurationError, RetryOptions, startTask
from soc_tasks.backends import get_backend
from soc_tasks.conf import Settings, find_problems, get_queues, get_settings
from soc_tasks.values import DEFAULT_RETRY

NAN, INFINITY = float("nan"), float("inf")
SECONDS = {"good": [1, 0.5, 86400], "bad": [0, -1, "5", True, NAN, INFINITY, [], 1j]}
TEXT = {"good": ["x", ""], "bad": [5, b"x", [], True]}
#: What each key takes, and what it does not.
KEYS = {
    "BACKEND": {"good": ["embedded", "memory", "a.b.C"], "bad": [None, 5, [], ConfigurationError]},
    "DATABASE": {"good": ["default", "other"], "bad": [None, 5]},
    "HOST": {"good": ["x.example", None], "bad": [5, ["x"]]},
    "SLICE_SECONDS": {"good": [*SECONDS["good"], None], "bad": SECONDS["bad"]},
    "BATCH_SECONDS": {"good": SECONDS["good"], "bad": [*SECONDS["bad"], None]},
    "LEASE_SECONDS": {"good": SECONDS["good"], "bad": [*SECONDS["bad"], None]},
    "TOMBSTONE_SECONDS": {"good": SECONDS["good"], "bad": [*SECONDS["bad"], None]},
    "RETENTION_DAYS": {"good": SECONDS["good"], "bad": [*SECONDS["bad"], None]},
    "RUNSERVER": {"good": [True, False], "bad": [1, 0, None, "yes"]},
    "TARGET": {"good": ["app_engine", "http"], "bad": ["", "HTTP", None, 5]},
    "URL": {
        "good": [None, "https://x.example", "https://x.example/", "HTTP://localhost:8000", "http://[::1]:8000"],
        "bad": [
            5,
            "",
            "x.example",
            "ftp://x.example",
            "//x.example",
            "http://",
            "https:///x",
            "http://:80",
            "http://u@x.example",
            "http://u:secret@x.example",
            "http://@x.example",
            "http://x.example?a",
            "http://x/?",
            "http://x.example#a",
            "http://x.example/path",
            "http://x.example:0",
            "http://x.example:99999",
            "http://x.example:a",
            "http://[::1",
            "http://x.exa mple",
            "http://x.example\n",
            "http://\u0445.example",
            "http:\\\\x.example",
            " http://x.example",
        ],
    },
    "DISPATCH": {"good": ["in_process", "http"], "bad": ["", "HTTP", None, 5]},
    "SERVICES": {
        "good": [{}, {"mail": "https://mail.example", "a b": "http://localhost:8001/"}],
        "bad": [
            None,
            [],
            "mail",
            {"": "https://x.example"},
            {5: "https://x.example"},
            {"mail": None},
            {"mail": "mail"},
            {"mail": "https://x.example/path"},
            {"mail": "https://u:secret@x.example"},
        ],
    },
    "SERVICE_ACCOUNT": {"good": ["a@x.example", None], "bad": [5]},
    "AUDIENCE": {"good": ["https://x.example", None], "bad": [5]},
    "CRON_SERVICE_ACCOUNT": {"good": ["a@x.example", None], "bad": [5]},
    "OIDC_ISSUER": {"good": ["https://x.example", "http://localhost:8123", "x"], "bad": ["", None, 5, []]},
    "OIDC_CERTS_URL": {
        "good": [
            "https://x.example",
            "https://x.example/certs?a=b",
            "http://localhost:8123/certs",
            "HTTP://127.0.0.1/certs",
            "http://127.1.2.3:80",
            "http://[::1]:8123/certs",
        ],
        "bad": [
            5,
            None,
            "",
            "x.example/certs",
            "//x.example/certs",
            "file:///etc/passwd",
            "ftp://localhost/certs",
            "http://x.example/certs",
            "http://10.0.0.1/certs",
            "http://0.0.0.0/certs",
            "http://localhost.x.example/certs",
            "http://127.0.0.1.x.example/certs",
            "http://localhost@x.example/certs",
            "http://x.example#localhost",
            "http://x.example\\@localhost/certs",
            "https://u:secret@x.example/certs",
            "https://x.example/certs\n",
            "https://x.example:0/certs",
            "https:///certs",
        ],
    },
    "PIN_VERSION": {"good": [True, False], "bad": [1, None, "no"]},
    "STATE": {"good": ["django", "datastore"], "bad": ["redis", "", None]},
    "DATASTORE_CLIENT": {"good": [None, "a.b", "a.b.c_1"], "bad": [5, "", "a", "a.b()", "a..b", "a.b\n"]},
    "DATASTORE_PROJECT": {"good": [None, "school", "x.example:school-1"], "bad": [5, "", "a/b", "x" * 101]},
    "DATASTORE_DATABASE": {"good": [None, "tasks-2"], "bad": [5, "", "(default)", "Tasks", "ab", "tasks-"]},
    "DATASTORE_NAMESPACE": {"good": [None, "school", "A.b_c-1"], "bad": [5, "", "a b", "a/b", "x" * 101]},
    "METRICS_ACCESS": {"good": [None, "superuser", "staff", "app.view_x"], "bad": [5, "", "all", "a.b.c", "staff\n"]},
    "METRICS_TOKEN": {"good": [None, "x" * 16], "bad": [5, "", "x" * 15, "x " * 16, "x" * 16 + "\n", "\u00e4" * 16]},
    "DEFERRABLE": {"good": [(), [], ("a.b",), ["a", "b"]], "bad": ["a.b", None, {"a"}, (5,), [None]]},
}


def cases(kind):
    return [pytest.param(key, value, id=f"{key}-{value!r}") for key, values in KEYS.items() for value in values[kind]]


def test_every_key_is_tested():
    assert set(KEYS) == {field.name.upper() for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize(("key", "value"), cases("good"))
def test_good_values_are_taken(settings, key, value):
    settings.SOC_TASKS = {key: value}
    taken = getattr(get_settings(), key.lower())
    assert taken == (tuple(value) if isinstance(value, list) else value)
    hash(get_settings())


@pytest.mark.parametrize(("key", "value"), cases("bad"))
def test_bad_values_are_refused_by_name(settings, key, value):
    settings.SOC_TASKS = {key: value}
    with pytest.raises(ConfigurationError, match=key) as caught:
        get_settings()
    assert isinstance(caught.value, ImproperlyConfigured)
    assert len(find_problems({key: value})) == 1


@pytest.mark.parametrize("key", ["BACKENDS", "backend", "Backend", "", 5, None])
def test_an_unknown_key_is_refused_and_the_known_ones_are_named(key):
    [problem] = find_problems({key: "x"})
    assert repr(key) in problem
    assert "SLICE_SECONDS" in problem


def test_all_problems_are_told_at_once():
    assert len(find_problems({"DATABSE": "x", "HOST": 5, "LEASE_SECONDS": 0})) == 3
    assert find_problems({}) == []


@pytest.mark.parametrize("given", [None, "embedded", [("BACKEND", "memory")], 5])
def test_the_setting_is_a_dict(settings, given):
    settings.SOC_TASKS = given
    with pytest.raises(ConfigurationError, match="dict"):
        get_settings()


def test_without_the_setting_everything_has_its_default(settings):
    if hasattr(settings, "SOC_TASKS"):
        del settings.SOC_TASKS
    assert get_settings() == Settings()
    assert (get_settings().backend, get_settings().database, get_settings().state) == ("embedded", "default", "django")


def test_a_changed_setting_is_followed_at_once(task_queues):
    startTask("behave")
    with override_settings(SOC_TASKS={"BACKEND": "embedded", "LEASE_SECONDS": 7}):
        assert get_settings().lease_seconds == 7
        # The test tools put their own in its place, whatever the settings say.
        assert type(get_backend()).__name__ == "MemoryBackend"
    assert get_settings().lease_seconds == 30
    assert type(get_backend()).__name__ == "MemoryBackend"


@pytest.mark.parametrize("backend", ["", "nowhere", "no.such.module", "soc_tasks.conf.NoSuchName"])
def test_a_backend_that_cannot_be_imported_is_a_configuration_error(settings, backend):
    settings.SOC_TASKS = {"BACKEND": backend}
    with pytest.raises(ConfigurationError, match="BACKEND"):
        get_backend()


def test_a_backend_may_be_a_dotted_path(settings):
    settings.SOC_TASKS = {"BACKEND": "soc_tasks.backends.memory.MemoryBackend"}
    assert startTask("behave").queue == "default"


@pytest.mark.parametrize(
    ("given", "environment", "seconds"),
    [
        ({}, "", 25),
        ({}, "standard", 25),
        ({"BACKEND": "cloud_tasks"}, "standard", 570),
        ({"BACKEND": "cloud_tasks"}, "", 25),
        ({"BACKEND": "cloud_tasks", "SLICE_SECONDS": 3}, "standard", 3),
    ],
)
def test_the_length_of_a_slice_goes_by_the_platform(settings, monkeypatch, given, environment, seconds):
    monkeypatch.setenv("GAE_ENV", environment)
    settings.SOC_TASKS = given
    assert get_settings().effective_slice_seconds == seconds


# CLOUD_TASKS_QUEUES


@pytest.mark.parametrize("number", [str, lambda number: number], ids=["strings", "numbers"])
def test_queues_take_their_options_as_numbers_or_strings(settings, number):
    options = {
        "rate_per_second": 2.5,
        "rate_max_concurrent": 3,
        "retry_max_attempts": 4,
        "retry_max_retry_duration": 60,
        "retry_min_backoff": 0.5,
        "retry_max_backoff": 5,
        "retry_max_doublings": 2,
    }
    settings.CLOUD_TASKS_QUEUES = [{"name": "slow", **{name: number(value) for name, value in options.items()}}]
    queue = get_queues()["slow"]
    assert (queue.rate_per_second, queue.rate_max_concurrent) == (2.5, 3)
    assert type(queue.rate_max_concurrent) is int
    assert queue.retry == RetryOptions(
        max_attempts=4, max_retry_duration=60, min_backoff=0.5, max_backoff=5, max_doublings=2
    )


def test_default_exists_and_may_be_configured(settings):
    settings.CLOUD_TASKS_QUEUES = []
    assert list(get_queues()) == ["default"]
    assert get_queues()["default"].retry == DEFAULT_RETRY
    settings.CLOUD_TASKS_QUEUES = [
        {"name": "mail", "rate_per_second": None},
        {"name": "default", "retry_max_attempts": 2},
    ]
    assert list(get_queues()) == ["mail", "default"]
    assert get_queues()["default"].retry.max_attempts == 2
    settings.CLOUD_TASKS_QUEUES = None
    assert list(get_queues()) == ["default"]


def test_unlimited_attempts_are_minus_one(settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "a", "retry_max_attempts": "-1"}]
    assert get_queues()["a"].retry.max_attempts == -1


@pytest.mark.parametrize(
    "queue",
    [
        None,
        "mail",
        [],
        {},
        {"name": None},
        {"name": ""},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "a_b"},
        {"name": "../b"},
        {"name": "ü"},
        {"name": "a" * 101},
        {"name": "a", "rate": 5},
        {"name": "a", 5: 5},
        {"name": "a", "RATE_PER_SECOND": 5},
        {"name": "a", "rate_per_second": 0},
        {"name": "a", "rate_per_second": -1},
        {"name": "a", "rate_per_second": "nan"},
        {"name": "a", "rate_per_second": "inf"},
        {"name": "a", "rate_per_second": "5/s"},
        {"name": "a", "rate_per_second": ""},
        {"name": "a", "rate_per_second": True},
        {"name": "a", "rate_per_second": []},
        {"name": "a", "rate_max_concurrent": 0},
        {"name": "a", "rate_max_concurrent": 1.5},
        {"name": "a", "rate_max_concurrent": "1.5"},
        {"name": "a", "rate_max_concurrent": INFINITY},
        {"name": "a", "retry_max_attempts": 0},
        {"name": "a", "retry_max_attempts": -2},
        {"name": "a", "retry_max_attempts": "many"},
        {"name": "a", "retry_max_doublings": -1},
        {"name": "a", "retry_min_backoff": -1},
        {"name": "a", "retry_min_backoff": NAN},
        {"name": "a", "retry_min_backoff": 2, "retry_max_backoff": 1},
        {"name": "a", "retry_max_retry_duration": "1h"},
    ],
    ids=repr,
)
def test_a_queue_that_cannot_be_read_is_refused(settings, queue):
    settings.CLOUD_TASKS_QUEUES = [queue]
    with pytest.raises(ConfigurationError, match="CLOUD_TASKS_QUEUES"):
        get_queues()


TOKEN = {"service_account_email": "tasks@x.example", "audience": "https://x.example"}


def test_an_http_target_is_read_as_the_service_has_it(settings):
    given = {
        "uri_override": {"scheme": "https", "host": "[::1]", "port": "8443", "path_override": "", "query_override": ""},
        "http_method": "post",
        "header_overrides": {"X-Kind": "mail"},
        "oauth_token": {"service_account_email": "tasks@x.example", "scope": "https://x.example/scope"},
    }
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "http_target": given}, {"name": "plain", "http_target": None}]
    target = get_queues()["mail"].http_target
    assert target["uri_override"] == {**given["uri_override"], "scheme": "HTTPS", "port": 8443}
    assert target["http_method"] == "POST"
    assert target["oauth_token"] == given["oauth_token"]
    assert get_queues()["plain"].http_target is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://x.example", "http_target must be a dict"),
        ({"uri": {}}, "unknown parts uri; known are uri_override"),
        ({"uri_override": "https://x.example"}, r"http_target\['uri_override'\] must be a dict"),
        ({"uri_override": {"url": "x"}}, "unknown parts url; known are scheme, host"),
        ({"uri_override": {"scheme": "ftp"}}, "one of HTTP, HTTPS"),
        ({"uri_override": {"host": ""}}, "name of a host"),
        ({"uri_override": {"host": "x.example:80"}}, "name of a host"),
        ({"uri_override": {"host": "https://x.example"}}, "name of a host"),
        ({"uri_override": {"host": "x.example\n"}}, "name of a host"),
        ({"uri_override": {"port": -1}}, "must be a port"),
        ({"uri_override": {"port": 65536}}, "must be a port"),
        ({"uri_override": {"port": "http"}}, "must be a port"),
        ({"uri_override": {"port": True}}, "must be a port"),
        ({"uri_override": {"port": 1.5}}, "must be a port"),
        ({"uri_override": {"port": INFINITY}}, "must be a port"),
        ({"uri_override": {"path_override": "tasks/"}}, "must begin with /"),
        ({"uri_override": {"path_override": "/a?b"}}, "must begin with /"),
        ({"uri_override": {"path_override": "/a b"}}, "must begin with /"),
        ({"uri_override": {"path_override": {"path": "/a"}}}, "must begin with /"),
        ({"uri_override": {"query_override": "?a=1"}}, "behind the \\?"),
        ({"uri_override": {"query_override": "a=ü"}}, "behind the \\?"),
        ({"uri_override": {"uri_override_enforce_mode": "NEVER"}}, "one of ALWAYS, IF_NOT_EXISTS"),
        ({"http_method": "TRACE"}, "one of POST, GET"),
        ({"http_method": 1}, "one of POST, GET"),
        ({"header_overrides": ["X-Kind"]}, "dict of names and values"),
        ({"header_overrides": {"X Kind": "mail"}}, "no name for a header"),
        ({"header_overrides": {5: "mail"}}, "no name for a header"),
        ({"header_overrides": {"X-Kind": "a\r\nb"}}, "printable ASCII"),
        ({"header_overrides": {"X-Kind": 5}}, "printable ASCII"),
        ({"header_overrides": {"X-Kind": "a", "x-kind": "b"}}, "twice"),
        ({"header_overrides": {"X-Kind": "a" * 80_000}}, "less than 80,000 bytes"),
        *(
            ({"header_overrides": {name: "x"}}, f"cannot set the header '{name}'")
            for name in ("Authorization", "host", "X-CloudTasks-TaskName", "X-AppEngine-QueueName", "X-SocTasks-Task")
        ),
        ({"oidc_token": {"service_account_email": "a@b"}}, "must say audience"),
        ({"oidc_token": {"audience": "x"}}, "must say service_account_email"),
        ({"oidc_token": {**TOKEN, "audience": ""}}, "printable ASCII"),
        ({"oidc_token": {**TOKEN, "scope": "x"}}, "unknown parts scope"),
        ({"oauth_token": {"service_account_email": "a@b"}}, "must say scope"),
        ({"oidc_token": TOKEN, "oauth_token": {"service_account_email": "a@b", "scope": "s"}}, "leave one out"),
    ],
    ids=repr,
)
def test_an_http_target_that_cannot_be_is_refused(settings, target, said):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "http_target": target}]
    with pytest.raises(ConfigurationError, match=f"CLOUD_TASKS_QUEUES: queue 'mail': .*{said}"):
        get_queues()


@pytest.mark.parametrize("queues", [5, "mail", {"name": "mail"}, [{"name": "a"}, {"name": "a"}], True])
def test_queues_that_are_no_list_of_different_names_are_refused(settings, queues):
    settings.CLOUD_TASKS_QUEUES = queues
    with pytest.raises(ConfigurationError, match="CLOUD_TASKS_QUEUES"):
        get_queues()


def test_a_client_of_datastore_is_made_whole_or_of_parts(settings):
    settings.SOC_TASKS = {"DATASTORE_CLIENT": "a.b", "DATASTORE_NAMESPACE": "school"}
    with pytest.raises(ConfigurationError, match="makes the client whole"):
        get_settings()
