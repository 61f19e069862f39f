"""Rows of an older release, and an older process that goes on writing, on tables of this release."""

from __future__ import annotations

import json
import os
import time
import uuid

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connections
from django.db.migrations.loader import MigrationLoader

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.processes import born, this_host
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.rows import QUEUES, TASKS, WORKERS
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer
from tests.databases import VENDORS, add_alias, drop_alias, sqlite_options
from tests.engine.tasks import make_task

ALIAS = "upgraded"
APPS = ("soc_tasks_engine", "soc_tasks")

#: What the first release wrote: the columns of its first migration that its inserts gave.
OLD_TASK = (
    "queue", "name", "state", "due", "owner", "path", "script_name", "headers", "body", "options", "start_id", "named",
    "created", "attempts", "responses", "first_attempt", "status", "busy", "crashes", "alone", "progress",
)  # fmt: skip
OLD_INSERT = (
    "queue", "name", "due", "path", "script_name", "headers", "body", "options", "start_id", "named", "created",
)  # fmt: skip
OLD_QUEUE = ("name", "paused", "tokens", "filled", "purged")
OLD_WORKER = ("host", "pid", "born", "started", "heartbeat", "beats")


class OldRelease:
    """Writes as the first release did."""

    def __init__(self, alias):
        self.alias = alias

    def execute(self, sql, *values):
        with connections[self.alias].cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def insert(self, table, columns, **values):
        given = [name for name in columns if name in values]
        marks = ", ".join(["%s"] * len(given))
        self.execute(f"INSERT INTO {table} ({', '.join(given)}) VALUES ({marks})", *(values[name] for name in given))

    def add(self, name, columns=OLD_INSERT, **more):
        now = round(time.time() * SECOND)
        values = {
            "queue": "default", "name": name, "due": now, "path": "/old", "script_name": "", "headers": "{}",
            "body": b"a=1", "options": "", "start_id": uuid.uuid4().hex, "named": True, "created": now, **more,
        }  # fmt: skip
        self.insert(TASKS, columns, **values)

    def join(self):
        now = round(time.time() * SECOND)
        self.insert(
            WORKERS, OLD_WORKER, host=this_host(), pid=os.getpid(), born=born(os.getpid()), started=now, heartbeat=now
        )
        ((worker,),) = self.execute(f"SELECT max(id) FROM {WORKERS}")
        return worker


@pytest.fixture
def upgraded(request, tmp_path, database_servers, django_db_setup, django_db_blocker, settings):
    """Give a database with the tables of the first migrations only."""
    server = None if request.param == "sqlite" else database_servers(request.param)
    name = None if server is None else server.create_database()
    options = sqlite_options(tmp_path / "old.sqlite3") if server is None else server.options(name)
    with django_db_blocker.unblock():
        add_alias(ALIAS, **options)
        settings.SOC_TASKS = {"DATABASE": ALIAS, "LEASE_SECONDS": 1.0}
        call_command("migrate", "soc_tasks_engine", "0001", database=ALIAS, verbosity=0)
        call_command("migrate", "soc_tasks", "0001", database=ALIAS, verbosity=0)
        yield ALIAS
        drop_alias(ALIAS)
    if server is not None:
        server.drop_database(name)


on_each = pytest.mark.parametrize("upgraded", VENDORS, indirect=True)


def migrate():
    for app in APPS:
        call_command("migrate", app, database=ALIAS, verbosity=0)


def columns(alias, table):
    connection = connections[alias]
    with connection.cursor() as cursor:
        return {column.name for column in connection.introspection.get_table_description(cursor, table)}


@on_each
def test_rows_of_the_first_release_live_on(upgraded):
    old = OldRelease(upgraded)
    assert {OLD_TASK, OLD_QUEUE, OLD_WORKER} == {
        tuple(name for name in names if name in columns(upgraded, table))
        for table, names in ((TASKS, OLD_TASK), (QUEUES, OLD_QUEUE), (WORKERS, OLD_WORKER))
    }
    now, full = round(time.time() * SECOND), {"state": 0, "owner": None, "busy": 0, "crashes": 0, "alone": False}
    full |= {"progress": "", "first_attempt": None, "status": None, "attempts": 0, "responses": 0}
    dead = old.join()
    old.add("waits")
    old.add("later", due=now + 3600 * SECOND)
    failed = {"attempts": 2, "responses": 2, "first_attempt": now - SECOND, "status": 500}
    old.add("failed", OLD_TASK, **full | failed | {"options": json.dumps({"retry": {"max_attempts": 3}})})
    old.add("running", OLD_TASK, **full | {"state": 1, "owner": dead})
    old.add("suspect", OLD_TASK, **full | {"state": 3, "crashes": 2})
    old.add(
        "ended", OLD_TASK, **full | {"state": 2, "due": now + 3600 * SECOND, "path": "", "headers": "", "body": b""}
    )
    old.add("held", queue="paused")
    old.insert(QUEUES, OLD_QUEUE, name="paused", paused=True)
    old.insert(QUEUES, OLD_QUEUE, name="rated", paused=False, tokens=3.0, filled=now)

    migrate()
    store = get_store(upgraded)
    assert store.is_ready()
    assert {record.id for record in store.list_workers()} == {dead}
    queues = {record.name: record for record in store.list_queues()}
    assert queues["paused"].paused
    assert not queues["rated"].paused
    states = {record.task.name: (record.state, record.attempts, record.crashes) for record in store.list_tasks()}
    assert states == {
        "waits": ("waiting", 0, 0),
        "later": ("waiting", 0, 0),
        "failed": ("waiting", 2, 0),
        "running": ("running", 0, 0),
        "suspect": ("suspect", 0, 2),
        "held": ("waiting", 0, 0),
    }
    ran = []

    def dispatch(task, delivery):
        ran.append((task.name, task.body, delivery.retry_count, delivery.is_last_attempt))
        return Answer(status=200)

    # The dead worker's beats stand still.
    Worker(upgraded, dispatch=dispatch).run_until_empty()
    assert sorted(ran) == [
        ("failed", b"a=1", 2, True),
        ("running", b"a=1", 0, False),
        ("suspect", b"a=1", 0, False),
        ("waits", b"a=1", 0, False),
    ]
    assert {record.task.name for record in store.list_tasks()} == {"later", "held"}
    assert [task.name for task in store.find_taken([make_task(name="ended"), make_task(name="free")])] == ["ended"]


@on_each
def test_an_older_process_goes_on_writing_after_the_migration(upgraded):
    """A deploy migrates first; web processes and workers of the older release go on for a while."""
    migrate()
    old = OldRelease(upgraded)
    store = get_store(upgraded)
    worker = old.join()
    for number in range(10):
        old.add(f"t{number}")
    # It claims one and settles it as a failure; and gives another back.
    now = round(time.time() * SECOND)
    assert old.execute(f"UPDATE {TASKS} SET state = 1, owner = %s WHERE name IN ('t0', 't1')", worker) == 2
    old.execute(
        f"UPDATE {TASKS} SET state = 0, owner = NULL, due = %s, attempts = 1, responses = 1, first_attempt = %s,"
        " status = 500, busy = 0, crashes = 0, alone = %s, progress = '' WHERE name = 't0'",
        now,
        now,
        False,
    )
    old.execute(f"UPDATE {TASKS} SET state = 0, owner = NULL WHERE name = 't1'")
    old.insert(QUEUES, OLD_QUEUE, name="rated", paused=False, tokens=1.0, filled=now)
    old.execute(f"UPDATE {WORKERS} SET heartbeat = %s, beats = beats + 1 WHERE id = %s", now, worker)
    old.execute(f"DELETE FROM {WORKERS} WHERE id = %s", worker)
    seen = []

    def dispatch(task, delivery):
        seen.append(task.name)
        return Answer(status=200)

    assert Worker(upgraded, dispatch=dispatch).run_until_empty() == 10
    assert sorted(seen) == sorted(f"t{number}" for number in range(10))
    assert {record.name for record in store.list_queues()} >= {"rated"}


@on_each
@pytest.mark.parametrize("app", APPS)
def test_each_column_that_came_later_has_a_default_in_the_database(upgraded, app):
    """Or none is needed: who does not know it can write rows."""
    with connections[upgraded].cursor() as cursor:
        there = connections[upgraded].introspection.table_names(cursor)
    # Who does not know a table writes no rows there.
    models = [model for model in apps.get_app_config(app).get_models() if model._meta.db_table in there]
    before = {model: columns(upgraded, model._meta.db_table) for model in models}
    migrate()
    for model in models:
        for field in model._meta.local_concrete_fields:
            if field.column not in before[model]:
                assert field.null or field.has_db_default(), f"{model.__name__}.{field.name}"


def test_migrations_are_in_one_line():
    """Two that were made at one time would leave an operator with a conflict."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    assert {app: names for app, names in loader.detect_conflicts().items() if app in APPS} == {}
