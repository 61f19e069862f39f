"""`tasks run` in real processes: signals, kills, replacements."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import pytest

from soc_tasks.engine.store import get_store
from soc_tasks.values import RetryOptions
from tests.engine.running import LEASE, is_alive, note
from tests.engine.tasks import make_task, names
from tests.engine.test_worker import until

pytestmark = pytest.mark.requires("sigkill")


@pytest.fixture
def store(file_database):
    return get_store(file_database)


def test_until_empty_runs_all_and_ends(store, run, ran):
    store.add([note(ran, f"t{number}") for number in range(200)])
    process = run("--processes", "2", "--threads", "2", "--until-empty")
    assert process.wait(60) == 0
    assert process.lines == [
        "soc_tasks worker ready: processes=2 threads=2 database=default queues=all\n",
    ]
    assert sorted(name for name, _ in ran()) == sorted(f"t{number}" for number in range(200))
    assert store.list_workers() == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_in_worker_processes_threads_alone_look_at_their_connections(store, run, ran, processes):
    store.add([note(ran, "t", path="/looks")])
    assert run("--processes", processes, "--until-empty").wait(60) == 0
    assert [found for found, _ in ran()] == ["False"]


def test_sigterm_ends_gracefully(store, run, ran):
    process = run("--processes", "2", "--threads", "1")
    store.add([note(ran, f"w{number}", path="/wait") for number in range(6)])
    until(lambda: len(ran()) == 2)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert time.monotonic() - start < 10
    # The two that ran saw it and answered; the others went back untouched, and are nobody's suspects.
    records = store.list_tasks()
    assert sorted(record.attempts for record in records) == [0, 0, 0, 0, 1, 1]
    assert {record.state for record in records} == {"waiting"}
    assert store.list_workers() == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_second_signal_ends_at_once(store, run, ran, processes):
    process = run("--processes", processes, "--threads", "1", ENGINE_URLS="tests.engine.stubborn")
    store.add([note(ran, "stubborn", path="/stubborn")])
    until(ran)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 1
    assert len(store.list_tasks()) == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_grace_period_ends_stubborn_tasks(store, run, ran, processes):
    process = run("--processes", processes, "--threads", "1", "--grace", "0.2", ENGINE_URLS="tests.engine.stubborn")
    store.add([note(ran, "stubborn", path="/stubborn")])
    until(ran)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 1
    (record,) = store.list_tasks()
    assert (record.state, record.attempts, record.crashes) == ("waiting", 0, 0)


def test_tasks_of_a_killed_process_come_back_within_the_lease_and_two_seconds(store, run, ran):
    process = run("--processes", "2", "--threads", "1")
    store.add([note(ran, "a", path="/wait"), note(ran, "b", path="/wait")])
    until(lambda: len(ran()) == 2)
    victim = int(ran()[0][1])
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    # It runs again: in the child that took the dead one's place (the other is busy).
    until(lambda: len(ran()) == 3)
    assert time.monotonic() - killed < LEASE + 2
    (name, again), first = ran()[2], ran()[0][0]
    assert name == first
    assert int(again) != victim
    record = store.get_task("default", name)
    assert (record.attempts, record.crashes) == (0, 0)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert any("SIGKILL" in line for line in process.errors)


def test_tasks_of_a_stopped_process_go_to_others_and_it_settles_nothing(store, run, ran):
    process = run("--processes", "2", "--threads", "1")
    store.add([note(ran, "a", path="/wait")])
    until(ran)
    stopped = int(ran()[0][1])
    os.kill(stopped, signal.SIGSTOP)
    try:
        until(lambda: len(ran()) == 2)
        assert int(ran()[1][1]) != stopped
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: any("silent for longer than its lease" in line for line in process.errors))
    assert store.get_task("default", "a").state == "running"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    # One attempt was counted, though two calls were made.
    assert store.get_task("default", "a").attempts == 1


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_process_with_an_attempt_that_cannot_be_stopped_is_replaced(store, run, ran, processes):
    process = run("--processes", processes, "--threads", "2", ENGINE_URLS="tests.engine.stubborn")
    workers = {record.id for record in store.list_workers()}
    retry = RetryOptions(min_backoff=3600)
    store.add([note(ran, "stubborn", path="/stubborn", dispatch_deadline=0.2, retry=retry)])
    until(lambda: store.get_task("default", "stubborn").attempts == 1)
    until(lambda: {record.id for record in store.list_workers()} - workers)
    # It handed back what it had, and counts as no crash.
    until(lambda: len(store.list_workers()) == int(processes))
    record = store.get_task("default", "stubborn")
    assert (record.state, record.status, record.crashes) == ("waiting", 504, 0)
    store.add([note(ran, "next")])
    until(lambda: store.get_task("default", "next") is None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert sum("stubborn of queue default outlived its deadline" in line for line in process.errors) == 1
    assert not any("ended with" in line for line in process.errors)


def test_a_lock_that_an_abandoned_attempt_holds_is_freed(store, run, ran):
    with store.writing() as cursor:
        cursor.execute("CREATE TABLE auth_group (id integer PRIMARY KEY, name text)")
    process = run("--processes", "2", "--threads", "1", ENGINE_URLS="tests.engine.stubborn", ENGINE_TIMEOUT="0.1")
    retry = RetryOptions(max_attempts=1)
    store.add([note(ran, "hold", path="/hold", dispatch_deadline=0.2, retry=retry)])
    until(lambda: any("hold of queue default outlived its deadline" in line for line in process.errors))
    store.add([note(ran, "next")])
    # With the lock, its end could not be written: it would be a suspect then, and run again, alone.
    until(lambda: store.list_tasks() == [])
    assert [name for name, _ in ran() if name == "hold"] == ["hold"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_children_end_when_the_supervisor_is_gone(store, run, ran):
    process = run("--processes", "2", "--threads", "1")
    pids = [record.pid for record in store.list_workers()]
    assert len(pids) == 2
    process.kill()
    process.wait(30)
    until(lambda: not any(map(is_alive, pids)))
    assert store.list_workers() == []


def test_poison_is_given_up_and_its_neighbours_run(store, run, ran):
    store.add([note(ran, "poison", path="/suicide", retry=RetryOptions(max_attempts=-1))])
    store.add([note(ran, f"n{number}") for number in range(20)])
    process = run("--processes", "2", "--threads", "2", "--until-empty")
    assert process.wait(60) == 0
    done = [name for name, _ in ran()]
    # One crash among others, and three alone.
    assert done.count("poison") == 4
    assert set(done) == {"poison", *(f"n{number}" for number in range(20))}
    assert store.list_tasks() == []


def test_a_site_that_does_not_load_ends_the_command(store, run):
    process = run("--processes", "2", "--skip-checks", ready=False, ENGINE_URLS="tests.engine.nowhere")
    assert process.wait(60) == 1
    assert process.lines == []


def test_a_commit_wakes_a_worker_in_another_process(store, run, ran):
    run("--processes", "1", "--threads", "1")
    store.add([note(ran, "first")])
    until(ran)
    waits = []
    for number in range(10):
        # An idle worker sleeps for 50 ms at a time: a wake by datagram is far sooner on the whole.
        start = time.monotonic()
        store.add([note(ran, f"n{number}")])
        until(lambda number=number: len(ran()) == number + 2)
        waits.append(time.monotonic() - start)
    assert sorted(waits)[5] < 0.04


def test_log_lines_and_their_silence(store, run):
    store.add([make_task("/crash", retry=RetryOptions(max_attempts=1))])
    process = run("--processes", "1", "--until-empty", "--verbosity", "0")
    assert process.wait(30) == 0
    store.add([make_task()])
    process = run("--processes", "1", "--until-empty", "--queue", "default", "--verbosity", "2")
    assert process.wait(30) == 0
    assert re.fullmatch(r"soc_tasks worker ready: processes=1 .* queues=default\n", process.lines[0])
    assert names(store.list_tasks()) == []
