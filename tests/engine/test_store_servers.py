"""What stores on servers add to the contract: locks, levels, conflicts, the server's time, notifications."""

from __future__ import annotations

import select
import threading
from contextlib import nullcontext

import pytest
from django.db import OperationalError, connections, transaction

from soc_tasks.engine import wakeup
from soc_tasks.engine.clock import SECOND, DatabaseClock
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.conflicts import TRIES, is_conflict
from soc_tasks.engine.store.rows import QUEUES, TASKS, WORKERS
from soc_tasks.engine.wakeup import Bell
from soc_tasks.errors import BackendUnavailableError, NotSupportedError
from tests.databases import VENDORS
from tests.engine.running import until
from tests.engine.tasks import done, make_task, names

on_servers = pytest.mark.parametrize("engine_database", VENDORS[1:], indirect=True)
on_postgresql = pytest.mark.parametrize("engine_database", VENDORS[1:2], indirect=True)


@pytest.fixture
def store(engine_database):
    return get_store(engine_database)


@pytest.fixture
def beside():
    """Run a function in a thread, on a connection of its own; give its result when asked."""
    threads = []

    def run(work):
        results, errors = [], []

        def call():
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            finally:
                connections.close_all()

        thread = threading.Thread(target=call)
        threads.append(thread)
        thread.start()

        def result():
            thread.join(30)
            assert not thread.is_alive()
            if errors:
                raise errors[0]
            return results[0]

        return result

    yield run
    for thread in threads:
        thread.join(30)


@on_servers
def test_claims_pass_over_rows_that_others_lock(store, beside):
    store.add([make_task(name=f"t{number}") for number in range(6)])
    first, second = store.join("here", 1, 1), store.join("there", 1, 1)
    with transaction.atomic(using=store.alias):
        held = store.exchange(first, [], 4)
        assert names(beside(lambda: store.exchange(second, [], 4))()) == ["t4", "t5"]
    assert names(held) == ["t0", "t1", "t2", "t3"]


@on_servers
def test_one_worker_at_a_time_claims_from_a_queue_with_limits(store, beside, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "narrow", "rate_max_concurrent": 2, "rate_per_second": 2}]
    store.set_paused("narrow", False)
    store.add([make_task(queue="narrow") for _ in range(9)])
    store.add([make_task(name="free")])
    workers = [store.join("here", number, 1) for number in (1, 2)]
    with transaction.atomic(using=store.alias):
        assert len(store.exchange(workers[0], [], 9, {"narrow"})) == 2
        # Neither waits for the other, nor for what it may not have.
        assert names(beside(lambda: store.exchange(workers[1], [], 9))()) == ["free"]
    assert store.exchange(workers[1], [], 9) == []


@on_servers
def test_what_a_claim_in_flight_leases_is_not_left_behind(store, beside):
    """A worker is struck off while it claims: what it leased comes back with the rest."""
    worker = store.join("here", 1, 1)
    store.add([make_task()])
    (record,) = store.list_workers()
    with transaction.atomic(using=store.alias):
        assert len(store.exchange(worker, [], 1)) == 1
        reclaimed = beside(lambda: store.reclaim(record, 60.0))
    assert reclaimed() == 1
    assert [record.state for record in store.list_tasks()] == ["suspect"]


@on_servers
def test_whatever_the_level_of_the_site_the_engines_own_is_read_committed(store, beside):
    connections.settings[store.alias]["OPTIONS"]["isolation_level"] = (
        "repeatable read" if connections[store.alias].vendor == "mysql" else _repeatable_read()
    )
    connections[store.alias].close()
    del connections[store.alias]
    store.add([make_task(name="there")])
    with store.writing() as cursor:
        count = f"SELECT count(*) FROM {TASKS}"
        assert store.fetch(cursor, count, ()) == [(1,)]
        beside(lambda: store.add([make_task(name="new")]))()
        assert store.fetch(cursor, count, ()) == [(2,)]
    # Those of the site stay as they are.
    with transaction.atomic(using=store.alias), store.cursor() as cursor:
        assert store.fetch(cursor, count, ()) == [(2,)]
        beside(lambda: store.add([make_task(name="newer")]))()
        assert store.fetch(cursor, count, ()) == [(2,)]


def _repeatable_read():
    from django.db.backends.postgresql.psycopg_any import IsolationLevel

    return IsolationLevel.REPEATABLE_READ


@on_servers
def test_a_deadlock_is_run_again(store, beside):
    """Two transactions take two rows, each the other's first: one of them is the victim, and comes again."""
    for name in ("a", "b"):
        store.set_paused(name, False)
    ids = dict(store.select(f"SELECT name, id FROM {QUEUES}"))
    mine, theirs = threading.Event(), threading.Event()
    conflicts = []

    def lock(cursor, name):
        cursor.execute(f"SELECT id FROM {QUEUES} WHERE id = %s FOR UPDATE", (ids[name],))

    def other():
        with transaction.atomic(using=store.alias), store.cursor() as cursor:
            lock(cursor, "b")
            theirs.set()
            assert mine.wait(10)
            try:
                lock(cursor, "a")
            except OperationalError as error:
                conflicts.append(is_conflict(error))
                raise

    tries = []

    def work(self):
        tries.append(1)
        with self.writing() as cursor:
            lock(cursor, "a")
            mine.set()
            assert theirs.wait(10)
            try:
                lock(cursor, "b")
            except OperationalError as error:
                conflicts.append(is_conflict(error))
                raise
        return "done"

    from soc_tasks.engine.store.conflicts import retried

    loser = beside(other)
    assert theirs.wait(10)
    assert retried(work)(store) == "done"
    try:
        loser()
    except OperationalError:
        assert len(tries) == 1
    else:
        assert len(tries) == 2
    assert conflicts == [True]


@on_servers
@pytest.mark.parametrize("inside", [False, True])
def test_conflicts_that_do_not_end_are_told(store, monkeypatch, inside):
    """Inside its caller's transaction nothing can be run again: the caller has to."""
    tries = []

    def fail(*_):
        tries.append(1)
        raise _conflict(connections[store.alias].vendor)

    monkeypatch.setattr(type(store), "insert_one", fail)
    monkeypatch.setattr("soc_tasks.engine.store.conflicts.FIRST_PAUSE", 0)
    around = transaction.atomic(using=store.alias) if inside else nullcontext()
    with pytest.raises(BackendUnavailableError, match=r"(?i)deadlock"), around:
        store.add([make_task()])
    assert len(tries) == (1 if inside else TRIES)


def _conflict(vendor):
    """A deadlock as Django tells it."""
    if vendor == "mysql":
        return OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")
    error = OperationalError("deadlock detected")
    error.__cause__ = Exception("deadlock detected")
    error.__cause__.sqlstate = "40P01"
    return error


def test_only_conflicts_are_conflicts():
    assert not is_conflict(OperationalError("gone"))
    assert not is_conflict(OperationalError(2006, "Server has gone away"))


@on_servers
def test_the_time_is_the_servers(store):
    assert isinstance(store.clock, DatabaseClock)
    before, now, after = store.read_time(), store.clock.now(), store.read_time()
    # Counted on from the last answer: off by no more than that took.
    assert before - SECOND // 10 <= now <= after + SECOND // 10
    with transaction.atomic(using=store.alias):
        first = store.read_time()
        assert store.read_time() > first


@on_servers
def test_a_database_without_skip_locked_is_refused(store, monkeypatch):
    assert store.is_ready()
    monkeypatch.setattr(connections[store.alias].features, "has_select_for_update_skip_locked", False)
    with pytest.raises(NotSupportedError, match=r"MariaDB 10\.6"):
        store.is_ready()


@on_servers
def test_a_server_that_may_lose_commits_is_named(store):
    """As the test servers do, on purpose."""
    [risk] = store.find_risks()
    assert "fsync = off" in risk or "innodb_flush_log_at_trx_commit = 2" in risk
    assert "may be lost" in risk


@on_servers
def test_missing_tables_say_how_to_make_them(store):
    with store.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {TASKS} RENAME TO hidden")
    try:
        assert not store.is_ready()
        with pytest.raises(BackendUnavailableError, match=f"manage.py migrate --database {store.alias}"):
            store.add([make_task()])
    finally:
        with store.cursor() as cursor:
            cursor.execute(f"ALTER TABLE hidden RENAME TO {TASKS}")


@on_servers
def test_indexes_by_state_are_there(store):
    with store.cursor() as cursor:
        found = connections[store.alias].introspection.get_constraints(cursor, TASKS)
    columns = {name: found[f"soc_tasks_engine_{name}"]["columns"] for name in ("waiting", "running", "ended")}
    state = [] if connections[store.alias].features.supports_partial_indexes else ["state"]
    assert columns == {
        "waiting": [*state, "queue", "due", "id"], "running": [*state, "owner", "queue"], "ended": [*state, "due"],
    }  # fmt: skip


@on_servers
def test_workers_of_one_queue_never_use_an_id_again(store):
    first = store.join("here", 1, 1)
    store.leave(first)
    assert store.join("here", 1, 1) > first
    assert store.select(f"SELECT count(*) FROM {WORKERS}") == [(1,)]


@on_servers
def test_all_that_was_done_goes_at_once(store, django_assert_num_queries):
    worker = store.join("here", 1, 1)
    store.add([make_task(named=False) for _ in range(50)])
    leased = store.exchange(worker, [], 50)
    # Begin, delete, commit.
    with django_assert_num_queries(3, connection=connections[store.alias]), store.writing() as cursor:
        store.delete_done(cursor, [(task.id, task.owner) for task in leased])
    assert store.list_tasks() == []
    store.exchange(worker, done(*leased), 0)


# Notifications.


@pytest.fixture
def elsewhere(monkeypatch):
    """Make this process one that reaches no worker on its machine."""
    monkeypatch.setattr("soc_tasks.engine.store.enqueue.wake", lambda alias: False)


def heard(listener):
    """Wait for something to be heard, and take it in."""
    ready, _, _ = select.select([listener], [], [], 10)
    return bool(ready) and listener.drain()


@on_postgresql
def test_workers_of_other_machines_hear_a_commit_and_nothing_before(store, elsewhere):
    listener = store.listen()
    try:
        with transaction.atomic(using=store.alias):
            store.add([make_task()])
            assert select.select([listener], [], [], 0) == ([], [], [])
        assert heard(listener)
        assert select.select([listener], [], [], 0) == ([], [], [])
        store.add([make_task()])
        assert heard(listener)
    finally:
        listener.close()


@on_postgresql
def test_where_a_worker_is_near_nobody_else_is_told(store):
    bell, listener = Bell(store.alias), store.listen()
    try:
        assert wakeup.wake(store.alias)
        store.add([make_task()])
        assert select.select([listener], [], [], 0) == ([], [], [])
    finally:
        bell.close()
        listener.close()


@on_postgresql
def test_a_bell_rings_for_other_machines_and_listens_again_when_cut_off(store, elsewhere, monkeypatch):
    monkeypatch.setattr(wakeup, "LISTEN_AGAIN", 0.0)
    bell = Bell(store.alias, store.listen)
    try:
        store.add([make_task()])
        assert bell.wait(10, hear=True)
        assert not bell.wait(0, hear=True)
        with store.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        # The lost connection wakes it (by the server's farewell, then by its end), and is opened anew.
        assert bell.wait(10, hear=True)
        until(lambda: not bell.wait(0, hear=True))
        store.add([make_task()])
        assert bell.wait(10, hear=True)
    finally:
        bell.close()


@on_postgresql
def test_a_server_that_does_not_let_us_listen_is_looked_at_instead(store, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("soc_tasks.engine.store.listening.CHANNEL", "no channel at all")
    assert store.listen() is None
    assert "looking instead" in caplog.text
