"""The site's databases "default" and "other", as files that threads share, or on the server that tests run on."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from django.conf import settings
from django.db import connections

from soc_tasks.backends import _load_backend
from soc_tasks.engine.store import get_store
from soc_tasks.state import get_state
from tests.databases import add_alias, drop_alias, let_threads_end, sqlite_options
from tests.specimen.models import Tag

ALIASES = ("default", "other")
#: Whether tests run on SQLite; else on a server, where only what depends on the database is run.
ON_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
#: On a server pytest-django makes the databases, and empties them after a test.
needs_databases = [] if ON_SQLITE else [pytest.mark.django_db(databases=ALIASES, transaction=True)]


@pytest.fixture(scope="session")
def empty_site(tmp_path_factory, empty_database, django_db_blocker):
    """Return the path of a SQLite file with the tables of the contract's site, to be copied."""
    path = tmp_path_factory.mktemp("site") / "empty.sqlite3"
    path.write_bytes(empty_database.read_bytes())
    with django_db_blocker.unblock():
        add_alias("site_template", **sqlite_options(path))
        try:
            with connections["site_template"].schema_editor() as editor:
                editor.create_model(Tag)
        finally:
            drop_alias("site_template")
    return path


@contextmanager
def _in_file(alias, path):
    """Have an alias mean a file for the block; what it meant before is left open, or a database in memory is gone."""
    before, entry = connections[alias], connections.settings[alias]
    connections.settings[alias] = {**entry, **sqlite_options(path)}
    del connections[alias]
    try:
        yield
    finally:
        let_threads_end()
        connections[alias].close()
        connections.settings[alias] = entry
        connections[alias] = before


def _forget():
    for cache in (get_store, get_state, _load_backend):
        cache.cache_clear()


@pytest.fixture
def site_databases(tmp_path, empty_site, django_db_setup, django_db_blocker):
    """Have "default" and "other" empty, and such that all threads see the same."""
    with django_db_blocker.unblock():
        _forget()
        if ON_SQLITE:
            paths = [tmp_path / f"{alias}.sqlite3" for alias in ALIASES]
            for path in paths:
                path.write_bytes(empty_site.read_bytes())
            with _in_file("default", paths[0]), _in_file("other", paths[1]):
                yield
        else:
            yield
            let_threads_end()
        _forget()


@pytest.fixture
def served_database(tmp_path, empty_database, django_db_blocker):
    """Give the alias of an empty database for a server of queues, which the site does not share."""
    path = tmp_path / "served.sqlite3"
    path.write_bytes(empty_database.read_bytes())
    with django_db_blocker.unblock():
        add_alias("served", **sqlite_options(path))
        yield "served"
        drop_alias("served")
