"""What operates `tasks run`, in real processes: log lines, health file, exit status, limits."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections

from soc_tasks.engine import emptiness, health
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.checkpoints import is_affected
from soc_tasks.engine.store.sqlite import SqliteStore
from soc_tasks.values import RetryOptions
from tests.engine.running import ROOT, is_alive, note, until
from tests.engine.tasks import make_task

pytestmark = pytest.mark.requires("sigkill")

ONCE = RetryOptions(max_attempts=1)


@pytest.fixture
def store(file_database):
    return get_store(file_database)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "health.json"


def check(path, *options):
    """The exit status and the line of the check, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "soc_tasks.engine.health", str(path), *options],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def read(path):
    return json.loads(path.read_text())


# Log lines.


def test_every_line_of_the_log_is_json(store, run):
    store.add([make_task("/noop", name="good"), make_task("/crash", name="bad", retry=ONCE)])
    process = run("--processes", "2", "--until-empty", "--log-format", "json")
    assert process.wait(60) == 0
    ready, *_ = [json.loads(line) for line in process.lines]
    assert ready["message"].startswith("soc_tasks worker ready: processes=2")
    until(lambda: any("worker ended" in line for line in process.errors))
    told = [json.loads(line) for line in process.errors if line.startswith("{")]
    tasks = {line["task"]: line for line in told if line["event"] == "task"}
    assert set(tasks) == {"good", "bad"}
    assert (tasks["good"]["outcome"], tasks["good"]["status"], tasks["good"]["attempt"]) == ("done", 200, 1)
    assert (tasks["bad"]["outcome"], tasks["bad"]["error"]) == ("dead", "RuntimeError")
    assert all(line["pid"] != process.pid and line["ms"] >= 0 and line["wait_ms"] >= 0 for line in tasks.values())


def test_a_worker_that_breaks_tells_in_json(store, run):
    process = run("--processes", "2", "--log-format", "json", ENGINE_URLS="tests.engine.damaged", ready=False)
    assert process.wait(60) == 1
    told = [json.loads(line) for line in process.errors if line.startswith("{")]
    assert any("RuntimeError: damaged" in line.get("traceback", "") for line in told)


def test_a_site_that_has_a_handler_keeps_it(store, run):
    store.add([make_task("/noop", name="a")])
    process = run("--processes", "1", "--until-empty", "--log-format", "json", ENGINE_LOGGING="1")
    assert process.wait(60) == 0
    assert any(line.startswith("site: task queue=default task=a") for line in process.errors)
    assert any("--log-format has no effect" in line for line in process.errors)
    assert not any(line.startswith("{") for line in process.errors)


# Health.


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_health_file_tells_how_it_is(store, run, ran, path, processes):
    process = run("--processes", processes, "--threads", "1", "--health-file", str(path))
    until(lambda: read(path)["state"] == "ready")
    told = read(path)
    assert (told["pid"], told["processes"], told["ready"], told["restarts"]) == (
        process.pid,
        int(processes),
        int(processes),
        0,
    )
    assert (told["database"], told["trouble"]) == (True, [])
    assert {worker["pid"] for worker in told["workers"]} == {record.pid for record in store.list_workers()}
    assert all(worker["beat_age"] < 30 and worker["database_age"] < 30 for worker in told["workers"])
    status, line = check(path, "--ready")
    assert (status, line) == (0, f"healthy: ready, {processes} of {processes} processes ready, pid {process.pid}\n")
    first = told["time"]
    until(lambda: read(path)["time"] > first)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert list(path.parent.glob("health.json*")) == []
    assert check(path) == (1, f"unhealthy: there is no {path}: no worker runs\n")


def test_draining_is_no_illness_but_not_ready(store, run, ran, path):
    process = run("--processes", "2", "--health-file", str(path), ENGINE_URLS="tests.engine.stubborn")
    store.add([note(ran, "stubborn", path="/stubborn")])
    until(ran)
    process.send_signal(signal.SIGTERM)
    until(lambda: read(path)["state"] == "draining")
    assert check(path)[0] == 0
    assert check(path, "--ready")[0] == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert not path.exists()


def test_the_file_of_a_killed_worker_grows_old(store, run, path):
    process = run("--processes", "1", "--health-file", str(path))
    process.kill()
    process.wait(30)
    assert path.exists()
    report = {**read(path), "time": "2026-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(report))
    status, line = check(path)
    assert status == 1
    assert "unhealthy: written" in line


def test_a_child_that_stands_still_is_unhealthy_and_recovers(store, run, path):
    run("--processes", "2", "--health-file", str(path))
    until(lambda: read(path)["ready"] == 2)
    victim = read(path)["workers"][0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    try:
        until(lambda: read(path)["trouble"] == [f"process {victim} hangs"])
        assert read(path)["state"] == "trouble"
        assert check(path)[0] == 1
    finally:
        os.kill(victim, signal.SIGCONT)
    until(lambda: read(path)["state"] == "ready")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_database_that_is_not_to_be_had_is_trouble_but_no_hanging(store, run, path, processes, monkeypatch):
    run("--processes", processes, "--health-file", str(path), ENGINE_TIMEOUT="0.1")
    until(lambda: read(path)["state"] == "ready")
    with store.writing() as cursor:
        cursor.execute("ALTER TABLE soc_tasks_engine_worker RENAME TO gone")
    try:
        until(lambda: read(path)["trouble"] == ["the database is not to be had"])
        assert read(path)["database"] is False
        assert check(path)[0] == 0
        assert check(path, "--ready")[0] == 1
    finally:
        with store.writing() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO soc_tasks_engine_worker")
    until(lambda: read(path)["state"] == "ready")


def test_restarts_are_counted(store, run, path):
    run("--processes", "2", "--health-file", str(path))
    os.kill(store.list_workers()[0].pid, signal.SIGKILL)
    until(lambda: read(path)["restarts"] == 1 and read(path)["ready"] == 2)


def test_the_check_needs_no_site(path):
    done = subprocess.run(
        [sys.executable, "-c", "import soc_tasks.engine.health, sys; print('django' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"time": 1}', "\x00"])
def test_a_file_that_is_none_of_ours_is_unhealthy(path, text, capsys):
    path.write_text(text)
    assert health.main([str(path)]) == 1
    assert capsys.readouterr().out.startswith("unhealthy: ")


def test_a_file_from_the_future_is_as_old(path, capsys):
    health.HealthFile(str(path), 30.0).write([], begun=False)
    path.write_text(json.dumps({**read(path), "state": "ready", "time": "2099-01-01T00:00:00+00:00"}))
    assert health.main([str(path)]) == 1


def test_the_file_is_not_written_through_a_link(path, tmp_path):
    prey = tmp_path / "prey"
    prey.write_text("mine")
    path.with_name(f"health.json.{os.getpid()}").symlink_to(prey)
    path.symlink_to(prey)
    health.HealthFile(str(path), 30.0).write([], begun=False)
    assert prey.read_text() == "mine"
    assert read(path)["state"] == "starting"


# Exit status; 0 and 1 are those of test_processes as well.


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--threads", "0"], {}),
        (["--no-such-option"], {}),
        (["--queue", "nosuch"], {}),
        (["--health-file", "/nowhere/at/all"], {}),
        (["--max-memory", "1"], {}),
        ([], {"ENGINE_BACKEND": "memory"}),
        ([], {"ENGINE_LEASE": "-1"}),
    ],
)
def test_what_starting_again_does_not_help_ends_with_2(store, run, arguments, environment):
    process = run(*arguments, ready=False, **environment)
    assert process.wait(60) == 2
    until(lambda: process.errors)
    assert not any("Traceback" in line for line in process.errors)


def test_missing_tables_end_with_2(store, run):
    with store.writing() as cursor:
        cursor.execute("DROP TABLE soc_tasks_engine_worker")
    try:
        process = run(ready=False)
        assert process.wait(60) == 2
    finally:
        with store.writing() as cursor:
            cursor.execute("CREATE TABLE soc_tasks_engine_worker (id, host, pid, born, started, heartbeat, beats)")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_being_told_to_end_is_a_good_end(store, run, number, processes):
    process = run("--processes", processes)
    process.send_signal(number)
    assert process.wait(30) == 0


def test_a_signal_before_it_listens_ends_it_as_any_other_program(store, run):
    process = run(ready=False)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


# SQLite's log.


@pytest.mark.skipif(not is_affected(), reason="this SQLite checkpoints by itself")
def test_the_log_stays_small_though_its_keeper_is_killed(store, run, ran):
    name = str(connections[store.alias].settings_dict["NAME"])
    connections[store.alias].close()
    connections[store.alias].settings_dict["OPTIONS"]["init_command"] += "; PRAGMA wal_autocheckpoint=0"
    run("--processes", "3", "--threads", "2", ENGINE_LEASE="5")
    for round_ in range(2):
        before = len(ran())
        for number in range(20):
            store.add([note(ran, f"r{round_}n{number}-{each}") for each in range(100)])
        until(lambda before=before: len(ran()) == before + 2000, timeout=60)
        # At once: one by one, each may find room where the last one was.
        store.add([make_task("/noop", body=b"x" * 1_000_000) for _ in range(12)])
        until(lambda: os.path.getsize(name + "-wal") < 30_000_000 and os.path.getsize(name) > 4_000_000)
        os.kill(store.list_workers()[0].pid, signal.SIGKILL)
    until(lambda: store.list_tasks() == [])
    assert Counter(name for name, _ in ran()).most_common(1)[0][1] <= 2
    assert len({name for name, _ in ran()}) == 4000
    with store.cursor() as cursor:
        assert cursor.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


# Limits.


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_process_is_replaced_when_it_has_run_its_tasks(store, run, ran, processes):
    store.add([note(ran, f"t{number}") for number in range(100)])
    process = run("--processes", processes, "--threads", "2", "--max-tasks", "20", "--until-empty")
    assert process.wait(120) == 0
    done = ran()
    assert sorted(name for name, _ in done) == sorted(f"t{number}" for number in range(100))
    counts = Counter(pid for _, pid in done)
    if processes == "2":
        assert all(count <= 22 for count in counts.values())
        assert len(counts) >= 5
    until(lambda: sum("replaced: it has run" in line for line in process.errors) >= 4)
    assert not any("ended with" in line or "is dead" in line for line in process.errors)
    assert store.list_workers() == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_process_that_leaks_is_replaced(store, run, ran, path, processes):
    process = run(
        "--processes", processes, "--threads", "1", "--max-memory", "200", "--health-file", str(path),
        ENGINE_URLS="tests.engine.leaky",
    )  # fmt: skip
    pids = {record.pid for record in store.list_workers()}
    number = 0
    while not read(path)["restarts"]:
        # One by one: memory is looked at every second.
        store.add([note(ran, f"l{number}", path="/leak")])
        number += 1
        until(lambda number=number: len(ran()) == number)
        assert number < 1000, "it was not replaced"
    until(lambda: any("MiB of memory" in line for line in process.errors))
    until(lambda: len(store.list_workers()) == int(processes))
    if processes == "2":
        assert {record.pid for record in store.list_workers()} != pids
    store.add([note(ran, "next")])
    until(lambda: len(ran()) == number + 1)
    # None was lost, none ran twice.
    assert Counter(name for name, _ in ran()) == Counter(["next", *(f"l{each}" for each in range(number))])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


@pytest.fixture
def leak(store, run, ran):
    """Have a task run until it ends or is told to, and others that leak beside it until the process wants to end."""

    def leak(name, *arguments):
        process = run(
            "--processes", "2", "--threads", "2", "--max-memory", "150", *arguments, ENGINE_URLS="tests.engine.leaky"
        )
        store.add([note(ran, name, path=f"/{name}")])
        until(ran)
        while not is_ending(process, int(ran()[0][1])):
            done = len(ran())
            store.add([note(ran, f"l{done}", path="/leak")])
            until(lambda done=done: len(ran()) > done)
            assert done < 1000, "it does not end"
        return process

    return leak


def is_ending(process, pid):
    return any(f" pid={pid} " in line and "MiB of memory" in line for line in process.errors)


def test_a_process_that_is_replaced_waits_for_its_tasks_beyond_the_grace_period(store, leak, ran):
    process = leak("linger", "--grace", "0.05")
    until(lambda: store.get_task("default", "linger") is None)
    assert [name for name, _ in ran()].count("linger") == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_while_it_is_replaced_it_can_be_stopped(store, leak, ran):
    process = leak("stubborn", "--grace", "0.2")
    assert is_alive(int(ran()[0][1]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    assert store.get_task("default", "stubborn").attempts == 0


@pytest.mark.django_db
def test_called_from_code_one_process_has_no_limits(file_database):
    with pytest.raises(CommandError, match="One process cannot be replaced here") as raised:
        call_command("tasks", "run", "--processes", "1", "--max-tasks", "5", verbosity=0, stdout=io.StringIO())
    assert raised.value.returncode == 2


def test_a_database_that_is_not_there_yet_is_worth_another_start(monkeypatch, file_database):
    def fail(*_):
        raise OperationalError("connection refused")

    monkeypatch.setattr(SqliteStore, "is_ready", fail)
    with pytest.raises(CommandError, match="connection refused") as raised:
        call_command("tasks", "run", "--until-empty")
    assert raised.value.returncode == 1


@pytest.mark.django_db
def test_a_server_that_may_lose_commits_is_named_at_the_start(monkeypatch, caplog, file_database):
    monkeypatch.setattr(SqliteStore, "find_risks", lambda self: ["It may lose what it has committed."])
    # It would open the other databases of this process, which lie in its memory and cannot be closed.
    monkeypatch.setattr(emptiness, "do_upkeep", lambda store: None)
    call_command("tasks", "run", "--until-empty", "--processes", "1", stdout=io.StringIO())
    assert "It may lose what it has committed." in caplog.text
