"""CLOUD_TASKS_QUEUES against the queues of a service: what differs, by command and when a process begins to serve."""

from __future__ import annotations

import io

import grpc
import pytest
from django.core.management import CommandError, call_command
from django.core.signals import request_started
from google.cloud.tasks_v2 import types

from soc_tasks import apps
from soc_tasks.backends.cloud_tasks import queues, targets
from soc_tasks.errors import ConfigurationError
from soc_tasks.values import QueueOptions
from tests.backends.fake_service import FakeService

PARENT = "projects/school/locations/here"


@pytest.fixture
def fake(settings, monkeypatch):
    fake = FakeService()
    settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "school", "here"
    settings.CLOUD_TASKS_QUEUES = [
        # As djangae's documentation has it: a number as a string.
        {"name": "default", "rate_per_second": "1", "rate_max_concurrent": 10, "retry_max_attempts": 3},
        {"name": "mail", "retry_min_backoff": 2.5, "log_sampling_ratio": 0.1, "routing": {"service": "mailer"}},
        {"name": "plain"},
    ]
    monkeypatch.setenv("TASKS_EMULATOR_HOST", fake.address)
    monkeypatch.setattr(queues, "_done", False)
    yield fake
    fake.stop()


def run(*options):
    out = io.StringIO()
    call_command("tasks", "queues", *options, stdout=out)
    return out.getvalue()


def test_a_plan_says_what_is_missing_and_does_nothing(fake):
    assert run("--plan").splitlines() == [
        "create default with rate_limits.max_dispatches_per_second = 1.0, rate_limits.max_concurrent_dispatches = 10,"
        " retry_config.max_attempts = 6",
        "create mail with app_engine_routing_override.service = mailer, retry_config.min_backoff = 2.5,"
        " stackdriver_logging_config.sampling_ratio = 0.1",
        "create plain",
    ]
    assert fake.queues == {}


def test_apply_creates_and_then_nothing_differs(fake):
    with pytest.raises(CommandError, match="mends that"):
        run("--check")
    run("--apply")
    assert set(fake.queues) == {f"{PARENT}/queues/{name}" for name in ("default", "mail", "plain")}
    assert fake.queues[f"{PARENT}/queues/default"].retry_config.max_attempts == 6
    for option in ("--check", "--plan", "--apply"):
        assert run(option) == "The queues are as CLOUD_TASKS_QUEUES says.\n"
    assert fake.masks == []


def test_only_what_differs_is_written_and_other_queues_are_left_alone(fake):
    run("--apply")
    changed = fake.queues[f"{PARENT}/queues/default"]
    changed.rate_limits.max_dispatches_per_second = 500
    changed.retry_config.max_doublings = 3
    other = fake.queues[f"{PARENT}/queues/other"] = types.Queue.pb()(name=f"{PARENT}/queues/other")
    assert run("--apply") == "update default: rate_limits.max_dispatches_per_second 500.0 -> 1.0\n"
    assert fake.masks == [["rate_limits.max_dispatches_per_second"]]
    assert changed.rate_limits.max_dispatches_per_second == 1
    # The settings do not say.
    assert changed.retry_config.max_doublings == 3
    assert fake.queues[other.name] is other


def test_another_kind_of_token_takes_the_place_of_one(fake, settings):
    account = {"service_account_email": "a@school"}
    for token in ({"oidc_token": {**account, "audience": "x"}}, {"oauth_token": {**account, "scope": "s"}}):
        settings.CLOUD_TASKS_QUEUES = [{"name": "default", "http_target": token}]
        planned = run("--plan")
        run("--apply")
    assert planned == (
        "update default: http_target.oauth_token.service_account_email None -> a@school,"
        " http_target.oauth_token.scope None -> s\n"
    )
    assert fake.masks == [["http_target.oauth_token"]]
    assert fake.queues[f"{PARENT}/queues/default"].http_target.WhichOneof("authorization_header") == "oauth_token"


def test_an_older_client_library_does_without_http_targets():
    """It is asked for only where the settings say something that it does not know."""
    older = types.Queue.pb().DESCRIPTOR.fields_by_name["rate_limits"].message_type._concrete_class()
    targets.write_target(older, QueueOptions(name="mail", http_target={}))
    targets.keep_rest(older, older)
    with pytest.raises(ConfigurationError, match="google-cloud-tasks>="):
        targets.write_target(older, QueueOptions(name="mail", http_target={"http_method": "POST"}))


def test_a_queue_yaml_in_the_project_is_warned_of(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.yaml").write_text("queue: []\n")
    run("--plan")
    assert "queue.yaml" in capsys.readouterr().err


def test_what_the_service_refuses_is_told_with_what_to_do(fake):
    fake.fault = lambda request: (grpc.StatusCode.PERMISSION_DENIED, False)
    with pytest.raises(CommandError, match=r"roles/cloudtasks\.queueAdmin"):
        run("--plan")


def test_on_another_backend_there_is_nothing_to_compare(settings):
    settings.SOC_TASKS = {"BACKEND": "embedded"}
    with pytest.raises(CommandError, match="for cloud_tasks"):
        run("--check")


# When a process begins to serve.


@pytest.mark.django_db
def test_the_first_request_of_a_process_puts_the_queues_right_in_the_background(fake, monkeypatch):
    threads = []
    begin = queues.update_in_background
    monkeypatch.setattr(queues, "update_in_background", lambda: threads.append(begin()))
    request_started.connect(apps._begin_to_serve, dispatch_uid="soc_tasks.apps")
    for _ in range(3):
        request_started.send(sender=None)
    (thread,) = threads
    thread.join(30)
    assert len(fake.queues) == 3
    assert begin() is None


def test_a_service_that_cannot_be_reached_stops_nobody(fake, caplog):
    fake.fault = lambda request: (grpc.StatusCode.UNAUTHENTICATED, False)
    queues.update_in_background().join(30)
    assert "were not updated" in caplog.text
    assert "queueAdmin" in caplog.text


@pytest.mark.django_db
def test_without_cloud_tasks_nothing_is_done(settings, monkeypatch):
    settings.SOC_TASKS = {"BACKEND": "embedded"}
    monkeypatch.setattr(queues, "update_in_background", lambda: pytest.fail("nothing to update"))
    request_started.connect(apps._begin_to_serve, dispatch_uid="soc_tasks.apps")
    request_started.send(sender=None)
