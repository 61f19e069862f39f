"""The database that holds the engine's tables and the library's own: is it there, new enough, and migrated?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.apps import apps
from django.db import Error, NotSupportedError, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.connection import ConnectionDoesNotExist

from soc_tasks.conf import get_settings
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "database"
_LABELS: Final = ("soc_tasks", "soc_tasks_engine")


def examine() -> Iterator[Finding]:
    """Connect, and look at version, migrations and risks."""
    settings = get_settings()
    if settings.state == "datastore":
        yield _examine_datastore()
        if settings.backend != "embedded":
            return
    alias = settings.database
    try:
        connection: Any = connections[alias]
        connection.ensure_connection()
        version = ".".join(str(part) for part in connection.get_database_version())
        yield Finding(FAMILY, OK, f"The database {alias!r} answers: {connection.display_name} {version}.")
    except (Error, NotSupportedError, ConnectionDoesNotExist) as error:
        yield Finding(
            FAMILY,
            FAIL,
            f"The database {alias!r} cannot be reached: {error}",
            f"Start it, or correct DATABASES[{alias!r}] in the settings.",
        )
        return
    yield from _examine_version(connection, alias)
    yield from _examine_migrations(connection, alias)
    if settings.backend == "embedded":
        yield from _examine_risks(alias)


def _examine_datastore() -> Finding:
    from soc_tasks.errors import SocTasksError
    from soc_tasks.state import get_state

    try:
        get_state().count_dead_letters(1)
    except (SocTasksError, OSError) as error:
        return Finding(
            FAMILY,
            FAIL,
            f"Datastore cannot be reached: {error}",
            "Correct SOC_TASKS['DATASTORE_PROJECT'], or run: gcloud auth application-default login",
        )
    return Finding(FAMILY, OK, "Datastore, which holds the state, answers.")


def _examine_version(connection: Any, alias: str) -> Iterator[Finding]:
    try:
        connection.check_database_version_supported()
    except NotSupportedError as error:
        yield Finding(FAMILY, FAIL, str(error), f"Bring the server of DATABASES[{alias!r}] up to date.")
    if connection.vendor != "sqlite" and not connection.features.has_select_for_update_skip_locked:
        yield Finding(
            FAMILY,
            FAIL,
            f"{connection.display_name} {connection.get_database_version()} lacks SKIP LOCKED, by which workers claim.",
            "Use PostgreSQL, MySQL 8, or MariaDB 10.6 or newer.",
        )


def _examine_migrations(connection: Any, alias: str) -> Iterator[Finding]:
    labels = [label for label in _LABELS if label in apps.app_configs]
    executor = MigrationExecutor(connection)
    targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] in labels]
    missing = [f"{label} {name}" for (label, name), _ in _plan(executor, targets)]
    if missing:
        yield Finding(
            FAMILY,
            FAIL,
            f"Migrations were not applied to {alias!r}: {', '.join(missing)}.",
            f"manage.py migrate --database {alias}",
        )
    else:
        yield Finding(FAMILY, OK, f"All migrations of {' and '.join(labels)} were applied to {alias!r}.")


def _plan(executor: MigrationExecutor, targets: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], bool]]:
    for migration, backwards in executor.migration_plan(targets):
        if migration.app_label in _LABELS:
            yield (migration.app_label, migration.name), backwards


def _examine_risks(alias: str) -> Iterator[Finding]:
    from soc_tasks.engine.store import get_store

    for risk in get_store(alias).find_risks():
        yield Finding(FAMILY, WARN, risk, "Change that in the server's configuration, and restart it.")
