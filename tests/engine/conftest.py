"""Fixtures of the engine's tests: databases in files, which several connections and processes can open."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connections

from soc_tasks.engine import hooks
from tests.engine import views


@pytest.fixture(autouse=True)
def engine_site(settings):
    """Serve the engine's own views, and forget what they saw."""
    settings.ROOT_URLCONF = "tests.engine.urls"
    settings.MIDDLEWARE = []
    views.seen.clear()
    views.let_go.clear()
    while views.waiting.acquire(blocking=False):
        continue


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch):
    """Leave out what the library's other rooms registered."""
    for name in ("_exhausted", "_upkeep", "_progress"):
        monkeypatch.setattr(hooks, name, [])


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory, django_db_setup, django_db_blocker):
    """Return the path of a SQLite file with the library's tables, to be copied."""
    path = tmp_path_factory.mktemp("engine") / "empty.sqlite3"
    with django_db_blocker.unblock():
        _add_alias("engine_template", path)
        try:
            for app in ("soc_tasks_engine", "soc_tasks"):
                call_command("migrate", app, database="engine_template", verbosity=0)
        finally:
            _drop_alias("engine_template")
    return path


@pytest.fixture
def file_database(tmp_path, empty_database, django_db_blocker, settings):
    """Give the alias of an empty database in a file, made the engine's."""
    path = tmp_path / "engine.sqlite3"
    path.write_bytes(empty_database.read_bytes())
    with django_db_blocker.unblock():
        _add_alias("engine_file", path)
        settings.SOC_TASKS = {**getattr(settings, "SOC_TASKS", {}), "DATABASE": "engine_file", "LEASE_SECONDS": 1.0}
        yield "engine_file"
        _drop_alias("engine_file")


def _add_alias(alias, path):
    connections.settings[alias] = {
        **connections.settings["default"],
        "NAME": str(path),
        "TEST": {},
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }


def _drop_alias(alias):
    from soc_tasks.engine.store import get_store

    connections[alias].close()
    del connections[alias]
    del connections.settings[alias]
    get_store.cache_clear()
