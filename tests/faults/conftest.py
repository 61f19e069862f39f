"""The site under faults on each kind of database, and the figures, which are printed at the end."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from soc_tasks.engine.worker import Worker
from tests.engine.running import is_alive, until
from tests.faults.running import Site
from tests.specimen.models import Row, Tag


class EngineRouter:
    """Sends the site's models to the engine's database, for workers of this process."""

    def db_for_read(self, model, **hints):
        return "engine_database" if model._meta.app_label == "specimen" else None

    db_for_write = db_for_read


#: What marks a figure among a test's properties.
FIGURE = "faults"


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
    started = []

    def start(**options):
        ready = threading.Event()
        worker = Worker(site.alias, ready=ready.set, **options)
        thread = threading.Thread(target=worker.run, daemon=True)
        started.append((worker, thread))
        thread.start()
        assert ready.wait(10)
        return worker

    yield start
    for worker, _ in started:
        worker.stop()
    for _, thread in started:
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def note_figure(record_property):
    """Give a function that keeps a line for the end of the run."""

    def note(*parts, **figures):
        line = " ".join([*map(str, parts), *(f"{name}={value}" for name, value in figures.items())])
        print(f"{FIGURE}: {line}")
        record_property(FIGURE, line)

    return note


def pytest_terminal_summary(terminalreporter):
    """Print the figures."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = sorted(value for report in reports for name, value in report.user_properties if name == FIGURE)
    if lines:
        terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(f"{FIGURE}: {line}")
