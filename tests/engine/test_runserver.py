"""The worker inside `manage.py runserver`."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connections

from soc_tasks.engine import runserver
from soc_tasks.engine.runserver import is_serving
from soc_tasks.engine.store import get_store
from tests.engine.running import ROOT, is_alive
from tests.engine.tasks import make_task
from tests.engine.test_worker import until


@pytest.mark.parametrize(
    ("arguments", "environment", "serving"),
    [
        (["manage.py"], {}, False),
        (["manage.py", "migrate", "runserver"], {"RUN_MAIN": "true"}, False),
        (["manage.py", "runserver"], {}, False),
        (["manage.py", "runserver", "8001"], {"RUN_MAIN": "true"}, True),
        (["manage.py", "runserver", "--noreload"], {}, True),
        (["manage.py", "--settings", "site.settings", "runserver"], {"RUN_MAIN": "true"}, True),
        (["manage.py", "--settings=x", "--no-color", "-v", "2", "runserver", "--noreload"], {}, True),
        (["manage.py", "--settings", "runserver"], {"RUN_MAIN": "true"}, False),
        (["manage.py", "--settings", "runserver", "migrate"], {"RUN_MAIN": "true"}, False),
        (["gunicorn", "site.wsgi", "runserver"], {"RUN_MAIN": "true"}, False),
        (["manage.py", "runserver", "--help"], {"RUN_MAIN": "true"}, False),
    ],
)
def test_which_process_serves(arguments, environment, serving):
    assert is_serving(arguments, environment) is serving


@pytest.fixture
def serve(file_database):
    started = []

    def serve(*arguments, **environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "django", "runserver", "--skip-checks", *arguments, f"127.0.0.1:{port}"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "DJANGO_SETTINGS_MODULE": "tests.engine.settings",
                "ENGINE_DATABASE": str(connections[file_database].settings_dict["NAME"]),
                "ENGINE_DEBUG": "1",
                **environment,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        process.errors = []
        threading.Thread(target=lambda: process.errors.extend(process.stderr), daemon=True).start()
        started.append(process)
        return process

    yield serve
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        until(lambda process=process: process.stderr.read() == "")
        process.stderr.close()


@pytest.mark.requires("sigkill")
@pytest.mark.parametrize("arguments", [["--noreload"], []])
def test_the_serving_process_runs_tasks_and_hands_back_at_its_end(file_database, serve, arguments, tmp_path):
    store, ran = get_store(file_database), tmp_path / "ran"
    process = serve(*arguments)
    for number in range(3):
        store.add([make_task(body=f"{ran}\nt{number}".encode())])
        until(lambda number=number: ran.exists() and len(ran.read_text().splitlines()) == number + 1)
    # One process works: the one that serves, which under autoreload is the child.
    (record,) = store.list_workers()
    assert (record.pid == process.pid) is bool(arguments)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    until(lambda: not is_alive(record.pid))
    assert store.list_workers() == []


@pytest.mark.requires("sigkill")
def test_it_waits_for_missing_tables_and_says_so_once(file_database, serve, tmp_path):
    ran = tmp_path / "ran"
    with sqlite3.connect(connections[file_database].settings_dict["NAME"]) as connection:
        for model in apps.get_app_config("soc_tasks_engine").get_models():
            connection.execute(f"DROP TABLE {model._meta.db_table}")
        connection.execute("DELETE FROM django_migrations WHERE app = 'soc_tasks_engine'")
    connection.close()
    process = serve("--noreload")
    until(lambda: any("manage.py migrate --database default" in line for line in process.errors))
    call_command("migrate", "soc_tasks_engine", database=file_database, verbosity=0)
    get_store(file_database).add([make_task(body=f"{ran}\nt".encode())])
    until(ran.exists)
    assert sum("tables are missing" in line for line in process.errors) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("given", [{"RUNSERVER": False}, {"BACKEND": "memory"}])
def test_no_worker_where_the_settings_want_none(settings, given, monkeypatch):
    settings.SOC_TASKS = given
    monkeypatch.setattr("soc_tasks.engine.worker.Worker.run", lambda self: pytest.fail("a worker ran"))
    runserver._work()
