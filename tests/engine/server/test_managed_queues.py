"""CLOUD_TASKS_QUEUES brought to a server as to the service: every option, and only what differs."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from soc_tasks.backends.cloud_tasks import queues
from tests.engine.server.conftest import PARENT

NAME = f"{PARENT}/queues/mail"
TOKEN = {"service_account_email": "tasks@demo.iam.gserviceaccount.com", "audience": "https://school.example"}


@pytest.fixture
def manage(server, settings, monkeypatch):
    """Give a function that sets the options of a queue and runs `tasks queues`."""
    settings.SOC_TASKS = {**settings.SOC_TASKS, "BACKEND": "cloud_tasks"}
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "demo", "here"
    monkeypatch.setenv("TASKS_EMULATOR_HOST", f"127.0.0.1:{server.port}")
    monkeypatch.setattr(queues, "_done", False)

    def manage(option, **options):
        settings.CLOUD_TASKS_QUEUES = [{"name": "mail", **options}]
        out = io.StringIO()
        call_command("tasks", "queues", option, stdout=out)
        return [line for line in out.getvalue().splitlines() if "default" not in line]

    return manage


EVERYTHING = {
    "rate_per_second": "5",
    "rate_max_concurrent": "2",
    "retry_max_attempts": "-1",
    "retry_max_retry_duration": "60",
    "retry_min_backoff": "0.5",
    "retry_max_backoff": "10",
    "retry_max_doublings": "3",
    "log_sampling_ratio": "0.25",
    "routing": {"service": "mailer", "version": "v1", "instance": "i"},
    "http_target": {
        "uri_override": {
            "scheme": "http",
            "host": "127.0.0.1",
            "port": "8080",
            "path_override": "/all",
            "query_override": "a=1",
            "uri_override_enforce_mode": "if_not_exists",
        },
        "http_method": "put",
        "header_overrides": {"X-Kind": "mail"},
        "oidc_token": TOKEN,
    },
}


def test_every_option_of_the_api_is_written_and_then_nothing_differs(manage, client):
    manage("--apply", **EVERYTHING)
    assert manage("--check", **EVERYTHING) == ["The queues are as CLOUD_TASKS_QUEUES says."]
    queue = client.get_queue(name=NAME)
    target = queue.http_target
    uri = target.uri_override
    assert (queue.rate_limits.max_dispatches_per_second, queue.rate_limits.max_concurrent_dispatches) == (5, 2)
    assert (queue.retry_config.max_attempts, queue.retry_config.max_doublings) == (-1, 3)
    assert queue.stackdriver_logging_config.sampling_ratio == 0.25
    assert queue.app_engine_routing_override.instance == "i"
    assert (uri.scheme.name, uri.host, uri.port) == ("HTTP", "127.0.0.1", 8080)
    assert (uri.path_override.path, uri.query_override.query_params) == ("/all", "a=1")
    assert uri.uri_override_enforce_mode.name == "IF_NOT_EXISTS"
    assert target.http_method.name == "PUT"
    assert [(each.header.key, each.header.value) for each in target.header_overrides] == [("X-Kind", "mail")]
    assert (target.oidc_token.service_account_email, target.oidc_token.audience) == tuple(TOKEN.values())


def test_no_field_of_a_queue_has_been_forgotten():
    """What the API lets a client set is an option here; a new version of the client library may bring more."""
    from google.cloud.tasks_v2 import types

    def fields(kind):
        return set(kind.pb().DESCRIPTOR.fields_by_name)

    assert fields(types.Queue) == {
        *("name", "state", "purge_time"),
        *("rate_limits", "retry_config", "stackdriver_logging_config", "app_engine_routing_override", "http_target"),
    }
    assert fields(types.HttpTarget) == {*EVERYTHING["http_target"], "oauth_token"}
    assert fields(types.UriOverride) == set(EVERYTHING["http_target"]["uri_override"])
    assert fields(types.RateLimits) == {
        *("max_dispatches_per_second", "max_concurrent_dispatches", "max_burst_size"),
    }
    assert len(fields(types.RetryConfig)) == len([name for name in EVERYTHING if name.startswith("retry_")])


def test_what_the_settings_do_not_say_stays(manage, client):
    manage("--apply", http_target={"uri_override": {"host": "a.example", "port": 81}, "http_method": "POST"})
    header = {"X-Kind": "mail", "X-Other": "1"}
    changed = {"uri_override": {"port": 82, "path_override": ""}, "header_overrides": header}
    assert manage("--plan", http_target=changed) == [
        "update mail: http_target.uri_override.port 81 -> 82, http_target.uri_override.path_override None -> ,"
        " http_target.header_overrides.X-Kind None -> mail, http_target.header_overrides.X-Other None -> 1"
    ]
    manage("--apply", http_target=changed)
    manage("--apply", http_target={"header_overrides": {"x-kind": "post"}})
    assert manage("--check", http_target={"header_overrides": {"X-KIND": "post", "X-Other": "1"}})[0].startswith("The")
    target = client.get_queue(name=NAME).http_target
    assert (target.uri_override.host, target.uri_override.port) == ("a.example", 82)
    assert "path_override" in target.uri_override
    assert target.http_method.name == "POST"
    assert {each.header.key: each.header.value for each in target.header_overrides} == {
        "x-kind": "post",
        "X-Other": "1",
    }
    # Nothing is said: all of it stays.
    assert manage("--check", http_target={})[0].startswith("The")
    assert manage("--check")[0].startswith("The")


def test_no_port_and_the_default_of_the_mode(manage, client):
    manage("--apply", http_target={"uri_override": {"host": "a.example"}})
    assert manage("--plan", http_target={"uri_override": {"uri_override_enforce_mode": "ALWAYS"}})[0].startswith("The")
    with pytest.raises(CommandError):
        manage("--check", http_target={"uri_override": {"port": 0}})
    manage("--apply", http_target={"uri_override": {"port": "0"}})
    assert "port" in client.get_queue(name=NAME).http_target.uri_override
    assert manage("--check", http_target={"uri_override": {"port": 0}})[0].startswith("The")


def test_tasks_go_where_the_queue_says(manage, client, target):
    host, port = target.url.removeprefix("http://").rstrip("/").split(":")
    uri = {"scheme": "HTTP", "host": host, "port": port, "path_override": "/all", "query_override": "b=2"}
    given = {"uri_override": uri, "header_overrides": {"X-Kind": "mail"}, "oidc_token": TOKEN}
    manage("--apply", http_target=given)
    client.create_task(parent=NAME, task={"http_request": {"url": "https://school.example/tasks/one/?a=1"}})
    [request] = target.take()
    assert request.first == "POST /all?b=2 HTTP/1.1"
    assert request.headers["X-Kind"] == "mail"
    assert request.headers["Authorization"].startswith("Bearer ")


def test_the_first_request_of_a_process_writes_it_too(manage, client):
    manage("--plan", http_target={"http_method": "POST"})
    queues.update_in_background().join(30)
    assert client.get_queue(name=NAME).http_target.http_method.name == "POST"


def test_a_server_that_makes_no_such_tokens_says_so(manage):
    with pytest.raises(CommandError, match="makes no OAuth tokens"):
        manage("--apply", http_target={"oauth_token": {"service_account_email": "a@b", "scope": "s"}})
