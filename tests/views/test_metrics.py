"""Overview and metrics by URL: who may look, and that nothing is shown but names and numbers."""

from __future__ import annotations

import json
import sys

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client, override_settings
from django.urls import reverse
from prometheus_client.parser import text_string_to_metric_families

from soc_tasks.backends import get_backend
from soc_tasks.conf import find_problems
from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.tally import MINUTE
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.contracts.state_records import RUN, make_letter
from tests.engine.tasks import make_task

pytestmark = pytest.mark.django_db(databases=["default", "other"])

TOKEN = "a-long-token-of-the-scraper"
NAMES = ("tasks_overview", "tasks_metrics")


@pytest.fixture
def store(settings):
    settings.SOC_TASKS = {"BACKEND": "embedded", "METRICS_TOKEN": TOKEN}
    return get_backend().store


def get(name, token=None, user=None, **headers):
    client = Client()
    if user is not None:
        client.force_login(user)
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return client.get(reverse(name), headers=headers)


def make_user(**more):
    return User.objects.create_user(f"user-{User.objects.count()}", **more)


@pytest.mark.parametrize("name", NAMES)
class TestAccess:
    def test_nobody_gets_in_without_a_proof(self, store, name):
        answer = get(name)
        assert (answer.status_code, answer.content) == (403, b"")
        assert get(name, user=make_user()).status_code == 403
        assert get(name, user=make_user(is_staff=True, is_active=False)).status_code == 403

    def test_staff_and_superusers_get_in(self, store, name):
        assert get(name, user=make_user(is_staff=True)).status_code == 200
        assert get(name, user=make_user(is_superuser=True)).status_code == 200

    def test_the_token_gets_in_and_no_other(self, store, name):
        answer = get(name, TOKEN)
        assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
        for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\u00e4" * 27):
            assert get(name, wrong).status_code == 403
        for scheme in ("Basic", "Token", ""):
            assert get(name, Authorization=f"{scheme} {TOKEN}").status_code == 403
        assert get(name, Authorization=TOKEN).status_code == 403
        assert Client().get(reverse(name), {"token": TOKEN}).status_code == 403

    def test_a_wrong_token_is_not_made_good_by_a_session(self, store, name):
        assert get(name, "wrong", user=make_user(is_superuser=True)).status_code == 403

    def test_without_a_token_in_the_settings_none_gets_in(self, store, name, settings):
        settings.SOC_TASKS = {"BACKEND": "embedded"}
        for given in ("None", "", "null"):
            assert get(name, given).status_code == 403

    def test_the_setting_names_a_permission(self, store, name, settings):
        settings.SOC_TASKS = {"BACKEND": "embedded", "METRICS_ACCESS": "soc_tasks.run_over_selection"}
        user = make_user(is_staff=True)
        assert get(name, user=user).status_code == 403
        user.user_permissions.add(Permission.objects.get(codename="run_over_selection"))
        assert get(name, user=User.objects.get(pk=user.pk)).status_code == 200
        assert get(name, user=make_user(is_superuser=True)).status_code == 200

    def test_the_setting_may_leave_superusers_or_nobody(self, store, name, settings):
        settings.SOC_TASKS = {"BACKEND": "embedded", "METRICS_ACCESS": "superuser"}
        assert get(name, user=make_user(is_staff=True)).status_code == 403
        assert get(name, user=make_user(is_superuser=True)).status_code == 200
        settings.SOC_TASKS = {"BACKEND": "embedded", "METRICS_ACCESS": None}
        assert get(name, user=make_user(is_superuser=True)).status_code == 403

    def test_it_fails_closed(self, store, name, monkeypatch, caplog):
        monkeypatch.setattr("soc_tasks.views.metrics.constant_time_compare", lambda *_: 1 / 0)
        assert get(name, TOKEN).status_code == 403
        assert "lets nobody in" in caplog.text

    def test_only_reading_is_answered(self, store, name):
        assert Client().post(reverse(name), headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405

    def test_the_site_may_ask_everybody_for_a_login(self, store, name, settings):
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
        assert get(name, TOKEN).status_code == 200
        assert get(name).status_code == 403

    def test_it_holds_no_transaction(self, store, name, settings, monkeypatch):
        monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
        seen = []
        monkeypatch.setattr(
            "soc_tasks.views.metrics.may_look", lambda request: seen.append(len(connections["default"].savepoint_ids))
        )
        before = len(connections["default"].savepoint_ids)
        get(name, TOKEN)
        assert seen == [before]


def fill(store):
    minute = store.clock.now() - store.clock.now() % MINUTE
    store.add([make_task("/pay/secret/", body=b"secret", headers={"X": "secret"}), make_task(queue='od"d\n\\{')])
    store.add_minutes([MinuteRecord(minute, "default", 4, 2, 1, 3 * SECOND)])
    get_state().add_dead_letter(make_letter(error="secret", traceback="secret"))
    shards = [ShardRecord(iteration=RUN, index=0, done=7, failed=1, cursor="secret", context='{"a": "secret"}')]
    state = get_state()
    state.create_iteration(IterationRecord(id=RUN, name="<script>.view", options={"context": "secret"}), shards)


def test_the_overview_is_json(store):
    fill(store)
    answer = get("tasks_overview", TOKEN)
    assert answer["Content-Type"] == "application/json"
    values = json.loads(answer.content)
    assert values["counts"]["waiting"] == 2
    assert [queue["name"] for queue in values["queues"]] == ["default", 'od"d\n\\{']
    assert b"secret" not in answer.content


def test_metrics_are_read_by_prometheus(store):
    fill(store)
    answer = get("tasks_metrics", TOKEN)
    assert answer["Content-Type"].startswith("text/plain; version=")
    assert b"secret" not in answer.content
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }
    assert samples["soc_tasks_tasks", "default", "due"] == 1
    assert samples["soc_tasks_tasks", "due", 'od"d\n\\{'] == 1
    assert samples["soc_tasks_queue_paused", "default"] == 0
    assert samples["soc_tasks_attempts_last_hour", "default", "succeeded"] == 4
    assert samples["soc_tasks_attempts_last_hour", "dead", "default"] == 1
    assert samples["soc_tasks_attempt_seconds_mean", "default"] == 0.5
    assert samples["soc_tasks_dead_letters",] == 1
    assert samples["soc_tasks_workers",] == 0
    assert samples["soc_tasks_iterations", "<script>.view", "running"] == 1
    assert samples["soc_tasks_iteration_entities_done", "<script>.view"] == 7
    assert samples["soc_tasks_alerts", "error", "no_worker"] == 1


def test_what_nobody_knows_is_left_out(memory_backend):
    with override_settings(SOC_TASKS={"BACKEND": "memory", "METRICS_TOKEN": TOKEN}):
        text = get("tasks_metrics", TOKEN).content.decode()
    assert "soc_tasks_queue_paused" in text
    assert "soc_tasks_workers" not in text
    assert "soc_tasks_attempts" not in text


def test_without_the_library_it_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "soc_tasks.views.exposition", raising=False)
    answer = get("tasks_metrics", TOKEN)
    assert answer.status_code == 501
    assert b"pip install 'soc-tasks[metrics]'" in answer.content
    assert get("tasks_metrics").status_code == 403
    assert get("tasks_overview", TOKEN).status_code == 200


@pytest.mark.parametrize("token", ["short", b"bytes-of-some-length", "with spaces in its midst", "\u00e4" * 20, 5])
def test_a_bad_token_is_refused_without_telling_it(token):
    [problem] = find_problems({"METRICS_TOKEN": token})
    assert "METRICS_TOKEN" in problem
    assert str(token) not in problem


@pytest.mark.parametrize("access", ["everybody", "", "a.b.c"])
def test_a_bad_access_is_refused(access):
    assert "'superuser', 'staff', a permission" in find_problems({"METRICS_ACCESS": access})[0]


def test_the_token_is_not_shown_with_the_settings(store):
    from soc_tasks.conf import get_settings

    assert TOKEN not in repr(get_settings())
