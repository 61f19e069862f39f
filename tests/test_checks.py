"""System checks: each speaks where it should, and is silent elsewhere."""

from __future__ import annotations

import contextlib
import sys
import types

import pytest
from django.apps import apps
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, connections
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

from soc_tasks import iterative_task, task
from soc_tasks.checks import check_indexes, check_sqlite_version
from tests.specimen.models import Entry

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def ask(**options):
    """The ids of our messages, and the messages."""
    found = checks.run_checks(include_deployment_checks=True, **options)
    return [message for message in found if (message.id or "").startswith("soc_tasks.")]


def ids(**options):
    return {message.id for message in ask(**options)}


@pytest.fixture(autouse=True)
def quiet_site(settings):
    """Serve nothing but a task, so that what the test site's iterations lack is not told."""
    route(settings, path("task/", task(lambda request: None)))
    settings.SOC_TASKS = {}


def route(settings, *patterns):
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = list(patterns)
    settings.ROOT_URLCONF = conf


def stop_here(get_response):
    return lambda request: HttpResponse("down for maintenance", status=503)


def test_a_site_in_order_is_silent():
    assert ask() == []


def test_a_site_in_order_is_silent_about_its_database():
    assert ask(databases=["default", "other"]) == []


def test_every_message_says_where_to_read_on(settings):
    settings.SOC_TASKS = {"DATABSE": "x"}
    [message] = ask()
    assert "docs/reference/checks.md#soc_taskse001" in message.hint


@pytest.mark.parametrize("given", [{"DATABSE": "x"}, {"LEASE_SECONDS": 0}, None, "embedded"])
def test_e001_settings_that_are_wrong(settings, given):
    settings.SOC_TASKS = given
    assert ids() == {"soc_tasks.E001"}


def test_e001_tells_of_each(settings):
    settings.SOC_TASKS = {"DATABSE": "x", "LEASE_SECONDS": 0}
    assert len(ask()) == 2


@pytest.mark.parametrize("given", [[{}], [{"name": "a b"}], 5, [{"name": "a"}, {"name": "a"}]])
def test_e002_queues_that_cannot_be_read(settings, given):
    settings.CLOUD_TASKS_QUEUES = given
    assert ids() == {"soc_tasks.E002"}


def test_e001_and_e002_come_together(settings):
    settings.SOC_TASKS, settings.CLOUD_TASKS_QUEUES = {"X": 1}, [{}]
    assert ids() == {"soc_tasks.E001", "soc_tasks.E002"}


def test_e003_an_alias_that_is_none(settings):
    settings.SOC_TASKS = {"DATABASE": "nowhere"}
    assert ids() == {"soc_tasks.E003"}
    settings.SOC_TASKS = {"DATABASE": "other"}
    assert ids() == set()


def test_e004_the_engine_is_not_installed(settings, monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "soc_tasks.engine")
    assert ids() == {"soc_tasks.E004"}
    settings.SOC_TASKS = {"BACKEND": "memory"}
    assert ids() == set()


@pytest.mark.parametrize(
    ("host", "allowed", "debug", "silent"),
    [
        (None, ["site.example"], False, True),
        (None, ["*"], False, True),
        (None, [".site.example", "site.example"], False, True),
        (None, [".site.example"], False, False),
        (None, [], True, True),
        (None, [], False, False),
        (None, ["[::1]"], False, True),
        ("www.site.example", [".site.example"], False, True),
        ("site.example:8000", ["site.example"], False, True),
        ("evil.example", ["site.example"], False, False),
        ("not a host", ["site.example"], False, False),
    ],
)
def test_w001_a_host_that_would_be_refused(settings, host, allowed, debug, silent):
    settings.ALLOWED_HOSTS, settings.DEBUG = allowed, debug
    settings.SOC_TASKS = {"HOST": host}
    assert ("soc_tasks.W001" in ids()) is not silent
    settings.SOC_TASKS = {"HOST": host, "BACKEND": "memory"}
    assert ids() == set()


def test_w002_a_prefix_that_would_redirect(settings):
    settings.PREPEND_WWW = True
    assert "soc_tasks.W002" in ids()
    settings.ALLOWED_HOSTS = ["www.site.example"]
    assert ids() == set()
    settings.ALLOWED_HOSTS = ["site.example"]
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.endswith("CommonMiddleware")]
    assert ids() == set()


def test_e007_dispatch_by_http_without_a_url(settings):
    settings.SOC_TASKS = {"DISPATCH": "http"}
    assert ids() == {"soc_tasks.E007"}
    settings.SOC_TASKS = {"DISPATCH": "http", "BACKEND": "memory"}
    assert ids() == set()
    settings.SOC_TASKS = {"DISPATCH": "http", "URL": "http://testserver"}
    assert ids() == set()


@pytest.mark.parametrize(
    ("url", "silent"),
    [
        ("http://site.example", True),
        ("https://site.example:8000/", True),
        ("http://10.0.0.1:8000", False),
        ("http://[::1]:8000", True),
        ("http://testserver", False),
    ],
)
def test_w001_a_url_whose_host_would_be_refused(settings, url, silent):
    settings.ALLOWED_HOSTS = ["site.example", "[::1]"]
    settings.SOC_TASKS = {"DISPATCH": "http", "URL": url, "HOST": "nobody asks"}
    hints = [message.hint for message in ask() if message.id == "soc_tasks.W001"]
    assert len(hints) == (0 if silent else 1)
    assert silent or "SOC_TASKS['URL']" in hints[0]
    # In process it is not called at all.
    settings.SOC_TASKS = {"URL": url}
    assert ids() == set()


def test_w002_redirects_of_a_url(settings):
    settings.ALLOWED_HOSTS = [".site.example"]
    settings.SOC_TASKS = {"DISPATCH": "http", "URL": "http://site.example", "HOST": "www.site.example"}
    settings.PREPEND_WWW = True
    assert "soc_tasks.W002" in ids()
    settings.PREPEND_WWW, settings.SECURE_SSL_REDIRECT = False, True
    [message] = ask()
    assert (message.id, "https://" in message.hint) == ("soc_tasks.W002", True)
    settings.SOC_TASKS = {**settings.SOC_TASKS, "URL": "https://site.example"}
    assert ids() == set()
    settings.SOC_TASKS = {"HOST": "www.site.example"}
    assert ids() == set()


@pytest.mark.parametrize("url", ["ftp://x.example", "http://u:p@x.example", "x", "http://x.example/?a"])
def test_e001_urls_that_are_none(settings, url):
    for given in ({"URL": url}, {"SERVICES": {"mail": url}}):
        settings.SOC_TASKS = given
        [message] = ask()
        assert message.id == "soc_tasks.E001"
        assert "u:p" not in message.msg


CLOUD = {"BACKEND": "cloud_tasks", "TARGET": "http", "URL": "https://site.example", "SERVICE_ACCOUNT": "a@x.example"}


@pytest.fixture
def cloud_project(settings):
    settings.CLOUD_TASKS_PROJECT_ID, settings.CLOUD_TASKS_LOCATION = "demo", "here"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (CLOUD, 0),
        ({**CLOUD, "SERVICE_ACCOUNT": None}, 1),
        ({**CLOUD, "SERVICE_ACCOUNT": ""}, 1),
        ({**CLOUD, "URL": None}, 1),
        ({**CLOUD, "URL": None, "AUDIENCE": "x"}, 0),
        ({"BACKEND": "cloud_tasks", "TARGET": "http"}, 2),
        ({"BACKEND": "cloud_tasks"}, 0),
        ({"TARGET": "http"}, 0),
    ],
)
def test_e008_nothing_that_proves_a_call(settings, cloud_project, given, found):
    settings.SOC_TASKS = given
    assert [message.id for message in ask()].count("soc_tasks.E008") == found


@pytest.mark.parametrize(
    ("given", "silent"),
    [
        (CLOUD, True),
        ({**CLOUD, "OIDC_ISSUER": "http://localhost:8123"}, False),
        ({**CLOUD, "OIDC_CERTS_URL": "http://localhost:8123/certs"}, False),
        ({"OIDC_ISSUER": "http://localhost:8123"}, True),
    ],
)
def test_w008_tokens_that_are_not_googles(settings, cloud_project, given, silent):
    settings.SOC_TASKS = given
    assert ("soc_tasks.W008" not in ids()) is silent
    without_deploy = checks.run_checks()
    assert not [found for found in without_deploy if found.id == "soc_tasks.W008"]


def test_e001_keys_that_come_over_an_open_network(settings):
    settings.SOC_TASKS = {**CLOUD, "OIDC_CERTS_URL": "http://x.example/certs"}
    [message] = ask()
    assert (message.id, "https://" in message.msg) == ("soc_tasks.E001", True)


def test_w003_tables_that_are_missing(monkeypatch, settings):
    for table in ("soc_tasks_shard", "soc_tasks_engine_task"):
        names = [name for name in connection.introspection.table_names() if name != table]
        with monkeypatch.context() as patch:
            patch.setattr(type(connection.introspection), "table_names", lambda *_, names=names, **__: names)
            [message] = ask(databases=["default"])
            assert message.id == "soc_tasks.W003"
            assert table in message.msg
            assert ids(databases=["other"]) == set()
            patch.setattr(sys, "argv", ["manage.py", "migrate"])
            assert ids(databases=["default"]) == set()


class OnlyDefault:
    """A router."""

    def allow_migrate(self, db, app_label, **hints):
        """Keep tables from all aliases but one."""
        return db == "default"


@pytest.fixture
def no_outbox(monkeypatch):
    """Hide the table of the outbox."""
    names = [name for name in connection.introspection.table_names() if name != "soc_tasks_outbox"]
    monkeypatch.setattr(type(connection.introspection), "table_names", lambda *_, **__: names)


@pytest.mark.parametrize("backend", ["embedded", "cloud_tasks"])
def test_w009_an_alias_without_an_outbox(settings, monkeypatch, cloud_project, no_outbox, backend):
    settings.SOC_TASKS = {"BACKEND": backend}
    [message] = ask(databases=["other"])
    assert message.id == "soc_tasks.W009"
    assert "migrate soc_tasks --database other" in message.hint
    # No database is asked that was not named; that of the settings has a check of its own.
    assert ids() == set()
    assert ids(databases=["default"]) == {"soc_tasks.W003"}
    monkeypatch.setattr(sys, "argv", ["manage.py", "migrate"])
    assert ids(databases=["other"]) == set()


def test_w009_is_silent_where_a_router_keeps_tasks_away(settings, no_outbox):
    settings.DATABASE_ROUTERS = ["tests.test_checks.OnlyDefault"]
    assert ids(databases=["other"]) == set()


def test_w009_is_silent_of_copies_and_in_tests(settings, no_outbox, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(connections.settings["other"], "TEST", {"MIRROR": "default"})
        assert ids(databases=["other"]) == set()
    settings.SOC_TASKS = {"BACKEND": "memory"}
    assert "soc_tasks.W009" not in ids(databases=["other"])


@pytest.mark.parametrize(
    ("options", "silent"),
    [
        ({}, False),
        ({"transaction_mode": None}, False),
        ({"transaction_mode": "DEFERRED"}, False),
        ({"transaction_mode": "immediate"}, True),
        ({"transaction_mode": "EXCLUSIVE"}, True),
    ],
)
def test_w004_sqlite_that_takes_its_lock_late(monkeypatch, options, silent):
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    assert ("soc_tasks.W004" in ids()) is not silent


def test_w005_a_middleware_that_stops_tasks(settings, monkeypatch):
    made = types.ModuleType("made_middleware")
    made.stop_here = stop_here
    monkeypatch.setitem(sys.modules, "made_middleware", made)
    settings.MIDDLEWARE = ["made_middleware.stop_here"]
    [message] = ask()
    assert message.id == "soc_tasks.W005"
    assert "503" in message.msg
    without_deploy = checks.run_checks()
    assert not [found for found in without_deploy if found.id == "soc_tasks.W005"]


@pytest.mark.parametrize(("order", "silent"), [("pk", True), ("count", None), ("remark", False), ("title", True)])
def test_w006_an_order_without_an_index(settings, order, silent):
    @iterative_task(Entry, order=order)
    def view(request, entities):
        return None

    route(settings, path("view/", view))
    if silent is not None:
        assert ids() == (set() if silent else {"soc_tasks.W006"})


def test_the_checks_are_registered_with_django():
    call_command("check")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "nosuch"}, "nosuch"),
        ({"atomic": True, "using": "other"}, "one database"),
    ],
)
def test_an_iteration_that_can_never_work_is_an_error(options, message):
    @iterative_task(Entry, **options)
    def view(request, entities):
        return None

    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("view/", view)]
    with override_settings(ROOT_URLCONF=conf):
        [found] = check_indexes()
    assert found.id == "soc_tasks.E006"
    assert message in found.msg


def test_the_engine_without_the_library_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "soc_tasks")
    with pytest.raises(ImproperlyConfigured, match='not "soc_tasks"'):
        apps.get_app_config("soc_tasks_engine").ready()


@pytest.fixture
def make_connection(monkeypatch):
    """Put something in the place of the database's connection: the real one holds the tests' tables in memory."""

    def make(command="", *, memory=False, vendor="sqlite", mode=None):
        cursor = types.SimpleNamespace(execute=lambda sql: cursor, fetchone=lambda: (mode,))
        made = types.SimpleNamespace(
            vendor=vendor,
            settings_dict={"OPTIONS": {"init_command": command}},
            is_in_memory_db=lambda: memory,
            Database=types.SimpleNamespace(sqlite_version="3.40.1", sqlite_version_info=(3, 40, 1)),
            cursor=lambda: contextlib.nullcontext(cursor),
        )
        monkeypatch.setattr("soc_tasks.checks.connections", {"default": made})
        return made

    return make


def ask_version(**options):
    return [message.id for message in check_sqlite_version(**options)]


@pytest.mark.parametrize(
    ("command", "silent"),
    [
        ("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", False),
        ("pragma Journal_Mode = 'wal'", False),
        ("PRAGMA journal_mode(WAL)", False),
        ("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0", True),
        ("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=1000", False),
        ("PRAGMA journal_mode=DELETE", True),
        ("", True),
        (None, True),
    ],
)
def test_w007_a_sqlite_that_may_corrupt_its_log(make_connection, command, silent):
    made = make_connection(command)
    assert ask_version() == ([] if silent else ["soc_tasks.W007"])
    made.Database.sqlite_version_info = (3, 51, 3)
    assert ask_version() == []


def test_w007_leaves_the_log_to_a_worker_only_where_there_is_one(make_connection, settings):
    for backend, hint in (("embedded", "wal_autocheckpoint=0"), ("cloud_tasks", "journal_mode=DELETE")):
        settings.SOC_TASKS = {"BACKEND": backend}
        make_connection("PRAGMA journal_mode=WAL")
        assert hint in check_sqlite_version()[0].hint


@pytest.mark.parametrize("other", [{"memory": True}, {"vendor": "postgresql"}])
def test_w007_is_for_sqlite_in_a_file(make_connection, other):
    make_connection("PRAGMA journal_mode=WAL", **other)
    assert ask_version(databases=["default"]) == []


@pytest.mark.parametrize(("mode", "silent"), [("wal", False), ("delete", True)])
def test_w007_asks_the_database_where_databases_are_checked(make_connection, mode, silent):
    make_connection(mode=mode)
    assert ask_version() == []
    assert ask_version(databases=["other"]) == []
    assert ask_version(databases=["default"]) == ([] if silent else ["soc_tasks.W007"])
