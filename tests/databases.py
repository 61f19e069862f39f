"""Databases of every kind the engine runs on, with the library's tables, for tests that open several connections.

`engine_database` gives the alias of an empty one, made the engine's; parametrize it indirectly with some of `VENDORS`
(`on_every_database`). SQLite gets a file for each test; servers start once and their tables are emptied after a test.
"""

from __future__ import annotations

import threading
from copy import deepcopy

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connections

from tests.servers import SERVERS

VENDORS = (
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.requires("postgresql")),
    pytest.param("mariadb", marks=pytest.mark.requires("mariadb")),
)
on_every_database = pytest.mark.parametrize("engine_database", VENDORS, indirect=True)

#: What has tables there.
_APPS = ("soc_tasks_engine", "soc_tasks")
_SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}


def add_alias(alias, **options):
    """Enter a database into DATABASES."""
    connections.settings[alias] = {**connections.settings["default"], "TEST": {}, **options}


def let_threads_end(seconds=10):
    """Wait for the threads of workers that have ended: without the alias they cannot close their connections."""
    pause, left = threading.Event(), seconds / 0.005
    while left > 0 and any(thread.name.startswith("soc_tasks") for thread in threading.enumerate()):
        pause.wait(0.005)
        left -= 1


def drop_alias(alias):
    """Forget a database, and close this thread's connection to it."""
    from soc_tasks.engine.store import get_store

    let_threads_end()
    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]
    get_store.cache_clear()


def sqlite_options(path):
    """Return the entry of DATABASES for a file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path), "OPTIONS": dict(_SQLITE_OPTIONS)}


def migrate(alias, apps=_APPS):
    """Make the tables."""
    for app in apps:
        call_command("migrate", app, database=alias, verbosity=0)


def empty(alias):
    """Delete all rows of the library's tables."""
    with connections[alias].cursor() as cursor:
        for app in _APPS:
            # Children come after their parents.
            for model in reversed(list(apps.get_app_config(app).get_models())):
                if model._meta.managed:
                    cursor.execute(f"DELETE FROM {model._meta.db_table}")


@pytest.fixture(scope="session")
def database_servers():
    """Give a function that returns the running server of a vendor, started at its first call."""
    running = {}

    def get(vendor):
        if vendor not in running:
            running[vendor] = SERVERS[vendor]()
        return running[vendor]

    yield get
    for server in running.values():
        server.end()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory, django_db_setup, django_db_blocker):
    """Return the path of a SQLite file with the library's tables, to be copied."""
    path = tmp_path_factory.mktemp("engine") / "empty.sqlite3"
    with django_db_blocker.unblock():
        add_alias("engine_template", **sqlite_options(path))
        try:
            migrate("engine_template")
        finally:
            drop_alias("engine_template")
    return path


@pytest.fixture(scope="session")
def server_database(database_servers, django_db_setup, django_db_blocker):
    """Give a function that returns the DATABASES entry of a vendor's database with the library's tables."""
    made = {}

    def get(vendor):
        if vendor not in made:
            server = database_servers(vendor)
            made[vendor] = server.options(server.create_database())
            with django_db_blocker.unblock():
                add_alias("engine_template", **made[vendor])
                try:
                    migrate("engine_template")
                finally:
                    drop_alias("engine_template")
        return made[vendor]

    return get


@pytest.fixture
def engine_database(request, tmp_path, empty_database, server_database, django_db_blocker, settings):
    """Give the alias of an empty database of the vendor that is asked for (SQLite unless one is)."""
    vendor = getattr(request, "param", "sqlite")
    if vendor == "sqlite":
        path = tmp_path / "engine.sqlite3"
        path.write_bytes(empty_database.read_bytes())
        options = sqlite_options(path)
    else:
        options = deepcopy(server_database(vendor))
    with django_db_blocker.unblock():
        add_alias("engine_database", **options)
        settings.SOC_TASKS = {
            **getattr(settings, "SOC_TASKS", {}), "DATABASE": "engine_database", "LEASE_SECONDS": 1.0,
        }  # fmt: skip
        yield "engine_database"
        if vendor != "sqlite":
            empty("engine_database")
        drop_alias("engine_database")
