"""The site under faults on each kind of database."""

from __future__ import annotations

import pytest
from django.db import connections

from tests.engine.running import is_alive, until, worker_threads
from tests.faults.running import Site
from tests.specimen.models import Row, Tag


class EngineRouter:
    """Sends the site's models to the engine's database, for workers of this process."""

    def db_for_read(self, model, **hints):
        return "engine_database" if model._meta.app_label == "specimen" else None

    db_for_write = db_for_read


@pytest.fixture
def site(request, engine_database, database_servers, tmp_path, settings):
    """Give the site on the vendor that `engine_database` has."""
    settings.ROOT_URLCONF = "tests.faults.site"
    settings.MIDDLEWARE = []
    settings.DATABASE_ROUTERS = [EngineRouter()]
    # Of processes and of this one: shards are judged by it.
    settings.SOC_TASKS = {**settings.SOC_TASKS, "LEASE_SECONDS": 1.0}
    vendor = request.node.callspec.params.get("engine_database", "sqlite") if hasattr(request.node, "callspec") else ""
    server = database_servers(vendor) if vendor in ("postgresql", "mariadb") else None
    connection = connections[engine_database]
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
    for model in (Row, Tag):
        if model._meta.db_table not in tables:
            with connection.schema_editor() as editor:
                editor.create_model(model)
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {model._meta.db_table}")
    site = Site(engine_database, server, tmp_path)
    yield site
    pids = [process.pid for process in site._started]
    site.end()
    if server is not None and server.process is None:
        server.start()
    connection.close()
    # Children see that their supervisor is gone.
    until(lambda: not any(map(is_alive, {*pids, *site.pids()})))


@pytest.fixture
def running_worker(site):
    """Start workers in threads of this process; stop them at the end."""
    with worker_threads(site.alias) as start:
        yield start
