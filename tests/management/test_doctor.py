"""`tasks doctor`: what each family of checks finds, how it is printed, and the exit status."""

from __future__ import annotations

import json
import types
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections
from django.test import override_settings

from soc_tasks.backends.cloud_tasks import permissions
from soc_tasks.backends.cloud_tasks.service import Service
from soc_tasks.engine.store import get_store
from soc_tasks.management import doctor
from soc_tasks.management.doctor import access, clock, database, google, queues, settings, sqlite, work
from soc_tasks.state import get_state
from tests.backends.fake_service import FakeService
from tests.contracts.state_records import make_letter
from tests.databases import on_every_database
from tests.engine.tasks import make_task

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture
def store(settings):
    settings.SOC_TASKS = {"BACKEND": "embedded"}
    return get_store("default")


def run(*arguments):
    """Run the verb; return what it printed, and whether it failed."""
    out = StringIO()
    try:
        call_command("tasks", "doctor", *arguments, stdout=out, no_color=True)
    except CommandError as error:
        return out.getvalue(), error
    return out.getvalue(), None


def find(family):
    """Return what one family finds: level and message by message's beginning."""
    return [(finding.level, finding.message, finding.mend) for finding in family.examine()]


def levels(family):
    return [finding.level for finding in family.examine()]


class TestCommand:
    def test_a_site_that_is_fit(self, store):
        store.join("here", 1, 1)
        out, error = run()
        assert error is None
        assert "fail" not in out.splitlines()[0]
        assert "1 worker processes were seen" in out
        assert "0 failed" in out.splitlines()[-1]

    def test_a_grave_fault_is_the_exit_status_and_says_what_mends_it(self, store):
        store.add([make_task()])
        out, error = run()
        assert error.returncode == 1
        lines = out.splitlines()
        [(line, mend)] = [pair for pair in pairwise(lines) if "No worker" in pair[0]]
        assert line.startswith("fail  work")
        assert mend.strip() == "-> manage.py tasks run"

    def test_json_is_one_object(self, store):
        out, error = run("--json")
        told = json.loads(out)
        assert error is None
        assert (told["ok"], told["failed"]) == (True, 0)
        assert {finding["family"] for finding in told["findings"]} == {
            "settings", "database", "sqlite", "clock", "access", "queues", "work",
        } - ({"sqlite"} if connection.vendor != "sqlite" else set())  # fmt: skip
        store.add([make_task()])
        out, error = run("--json")
        assert error.returncode == 1
        assert not json.loads(out)["ok"]

    def test_settings_that_cannot_be_read_end_it(self):
        with override_settings(SOC_TASKS={"COLOUR": "red", "METRICS_TOKEN": "short"}):
            out, error = run()
        assert error.returncode == 1
        assert "(soc_tasks.E001)" in out
        assert not any(line.split()[1:2] == ["database"] for line in out.splitlines())
        assert "short" not in out

    def test_a_family_that_breaks_does_not_keep_the_others_from_it(self, store, monkeypatch):
        monkeypatch.setattr(clock, "examine", lambda: 1 / 0)
        found = {finding.family: finding for finding in doctor.examine()}
        assert found["clock"].level == "fail"
        assert "ZeroDivisionError" in found["clock"].message
        assert "work" in found

    def test_every_family_says_what_it_looks_at(self):
        for name in doctor.FAMILIES:
            module = __import__(f"soc_tasks.management.doctor.{name}", fromlist=[name]).__doc__
            assert module.splitlines()[0].endswith(("?", ".", "do."))


class TestSettings:
    def test_system_checks_are_findings_with_their_id_and_hint(self, store):
        with override_settings(ALLOWED_HOSTS=["x.example"], SOC_TASKS={"BACKEND": "embedded", "HOST": "y.example"}):
            found = {finding.id: finding for finding in settings.examine()}
        assert found["soc_tasks.W001"].level == "warn"
        assert "SOC_TASKS['HOST']" in found["soc_tasks.W001"].mend
        # The probe through the whole middleware, too.
        assert "soc_tasks.W005" in found


class TestDatabase:
    def test_version_and_migrations(self, store):
        answers, migrated, *_ = find(database)
        assert answers[0] == migrated[0] == "ok"
        assert "answers" in answers[1]
        assert "All migrations of soc_tasks and soc_tasks_engine" in migrated[1]

    def test_migrations_that_lack_are_named_with_the_command(self, store, monkeypatch):
        from django.db.migrations.recorder import MigrationRecorder

        applied = MigrationRecorder.applied_migrations

        def without(self):
            return {key: value for key, value in applied(self).items() if key != ("soc_tasks_engine", "0006_keys")}

        monkeypatch.setattr(MigrationRecorder, "applied_migrations", without)
        assert ("fail", "Migrations were not applied to 'default': soc_tasks_engine 0006_keys.",
                "manage.py migrate --database default") in find(database)  # fmt: skip

    def test_a_database_that_is_away(self, store, monkeypatch):
        def refuse():
            raise OperationalError("connection refused")

        monkeypatch.setattr(connections["default"], "ensure_connection", refuse)
        [(level, message, mend)] = find(database)
        assert (level, "connection refused" in message) == ("fail", True)
        assert "DATABASES['default']" in mend

    @on_every_database
    def test_on_every_kind(self, engine_database, settings):
        settings.SOC_TASKS = {"BACKEND": "embedded", "DATABASE": engine_database}
        assert set(levels(database)) <= {"ok", "warn"}
        assert levels(clock) == ["ok"]


class TestSqlite:
    @pytest.fixture
    def options(self, tmp_path, settings):
        """Give what is set of a database of its own."""
        from tests.databases import add_alias, drop_alias, sqlite_options

        entry = sqlite_options(tmp_path / "site.sqlite3")
        add_alias("apart", **entry)
        settings.SOC_TASKS = {"BACKEND": "embedded", "DATABASE": "apart"}
        yield connections.settings["apart"]["OPTIONS"]
        drop_alias("apart")

    @pytest.fixture(autouse=True)
    def _allow(self, django_db_blocker):
        with django_db_blocker.unblock():
            yield

    def test_good_settings(self, options):
        [(level, message, _)] = find(sqlite)
        assert (level, "WAL" in message) == ("ok", True)

    def test_each_setting_that_hurts(self, options):
        options.update(init_command="PRAGMA journal_mode=DELETE; PRAGMA synchronous=OFF", timeout=5)
        found = find(sqlite)
        assert [level for level, _, _ in found] == ["warn", "fail", "warn"]
        mends = [mend for _, _, mend in found]
        assert "journal_mode=WAL" in mends[0]
        assert "synchronous=NORMAL" in mends[1]
        assert "['timeout'] to 20" in mends[2]

    @pytest.mark.skipif(connection.vendor != "sqlite", reason="the test site's own database")
    def test_a_database_in_memory(self, store):
        assert levels(sqlite) == ["warn"]


@pytest.mark.parametrize(
    ("skew", "level"), [(0.0, "ok"), (1.9, "ok"), (-5, "warn"), (5, "warn"), (90, "fail"), (-90, "fail")]
)
def test_clocks_that_differ(skew, level):
    finding = clock.judge(skew)
    assert finding.level == level
    assert ("NTP" in finding.mend) == (level != "ok")


class TestAccess:
    def test_urls_that_lack(self, store):
        conf = types.ModuleType("no_urls")
        conf.urlpatterns = []
        with override_settings(ROOT_URLCONF=conf):
            found = find(access)
        assert found[0][0] == "warn"
        assert 'include("soc_tasks.urls")' in found[0][2]

    def test_the_host_of_url_must_be_let_in(self, settings):
        settings.SOC_TASKS = {"BACKEND": "embedded", "DISPATCH": "http", "URL": "https://tasks.example"}
        assert ("fail", "Add 'tasks.example' to ALLOWED_HOSTS.") in [(a, c) for a, _, c in find(access)]
        settings.ALLOWED_HOSTS = ["tasks.example"]
        assert "fail" not in levels(access)

    def test_views_that_only_people_and_cron_start_are_named(self, store):
        [message] = [message for _, message, _ in find(access) if "task views" in message]
        assert message.endswith("only sessions and cron start tests.site.for_cron, tests.site.for_staff.")


class TestQueues:
    def test_tasks_in_a_queue_that_is_not_configured(self, store):
        assert levels(queues) == ["ok"]
        store.add([make_task(queue="former")])
        [(level, message, mend)] = find(queues)
        assert (level, "'former'" in message) == ("warn", True)
        assert '{"name": "former"}' in mend

    @pytest.fixture
    def fake(self, settings, monkeypatch):
        fake = FakeService()
        settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
        settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "rate_per_second": 5}]
        settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "school", "here"
        monkeypatch.setenv("TASKS_EMULATOR_HOST", fake.address)
        yield fake
        fake.stop()

    def test_drift_on_cloud_tasks(self, fake):
        from soc_tasks.backends.cloud_tasks.queues import QueueService

        found = find(queues)
        assert [(level, mend) for level, _, mend in found] == [("fail", "manage.py tasks queues --apply")] * 2
        service = QueueService()
        service.apply(service.plan())
        assert levels(queues) == ["ok"]
        fake.queues["projects/school/locations/here/queues/mail"].rate_limits.max_dispatches_per_second = 7
        [(level, message, _)] = find(queues)
        assert (level, "max_dispatches_per_second 7.0 -> 5.0" in message) == ("warn", True)

    def test_a_server_that_stands_for_google(self, fake):
        [(level, message, _)] = find(google)
        assert (level, fake.address in message) == ("ok", True)


class TestGoogle:
    """Against a service that tells what an account may do."""

    @pytest.fixture
    def granted(self, settings, monkeypatch):
        settings.SOC_TASKS = {"BACKEND": "cloud_tasks"}
        settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "school", "here"
        monkeypatch.delenv("TASKS_EMULATOR_HOST", raising=False)
        granted = list(permissions.ROLES)

        class Client:
            def test_iam_permissions(self, request):
                assert request["resource"] == "projects/school/locations/here/queues/default"
                return types.SimpleNamespace(permissions=[p for p in request["permissions"] if p in granted])

        service = object.__new__(Service)
        service.client = Client()
        monkeypatch.setattr(permissions, "get_service", lambda: service)
        monkeypatch.setattr(google, "find_account", lambda: "site@school.example")
        return granted

    def test_all_that_is_needed(self, granted):
        assert levels(google) == ["ok"]

    def test_roles_that_lack_come_with_the_command(self, granted):
        granted.remove("cloudtasks.tasks.create")
        granted.remove("cloudtasks.queues.update")
        (enqueue, *_), (update, _, command) = find(google)
        assert (enqueue, update) == ("fail", "warn")
        assert command == (
            "gcloud projects add-iam-policy-binding school --member=serviceAccount:site@school.example "
            "--role=roles/cloudtasks.queueAdmin"
        )

    def test_without_a_project(self, granted, settings, monkeypatch):
        monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
        settings.CLOUD_TASKS_PROJECT_ID = None
        assert levels(google) == ["fail"]


class TestWork:
    def test_alerts_are_findings(self, store):
        get_state().add_dead_letter(make_letter())
        get_state().hold_tasks([make_task(created=datetime.now(UTC) - timedelta(hours=1))], "other")
        found = {(level, mend) for level, _, mend in find(work)}
        assert ("fail", "manage.py tasks relay") in found
        assert ("warn", "manage.py tasks failed") in found
