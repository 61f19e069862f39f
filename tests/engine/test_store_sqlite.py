"""What is SQLite's own in its store; the contract is in test_store_contract.py."""

from __future__ import annotations

import re
import sqlite3

import pytest
from django.db import OperationalError, connections, transaction
from django.test.utils import CaptureQueriesContext

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.rates import Share
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.rows import TASKS
from soc_tasks.engine.store.sqlite import MOST_SHARES, SqliteStore
from soc_tasks.engine.verdicts import Outcome, Verdict
from soc_tasks.errors import BackendUnavailableError, ConfigurationError, NotSupportedError
from soc_tasks.start_ids import make_start_id
from tests.engine.tasks import done, make_task, names, rolled_back


@pytest.fixture
def store(file_database):
    return SqliteStore(file_database)


@pytest.fixture
def other(file_database):
    """A connection of somebody else."""
    connection = sqlite3.connect(connections[file_database].settings_dict["NAME"], isolation_level=None)
    yield connection
    connection.close()


def test_a_locked_database_is_unavailable(store, other):
    connections.settings[store.alias]["OPTIONS"]["timeout"] = 0.01
    connections[store.alias].close()
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnavailableError, match="locked"):
        store.add([make_task()])
    other.execute("ROLLBACK")
    store.add([make_task()])


def test_a_broken_transaction_takes_no_task(store):
    """The driver would write it, and whoever catches the error would not see it undone."""
    with transaction.atomic(using=store.alias):
        transaction.set_rollback(True, using=store.alias)
        with pytest.raises(BackendUnavailableError, match="until the end of the 'atomic' block"):
            store.add([make_task()])
    assert store.list_tasks() == []


def test_whoever_listens_to_the_connection_hears_of_a_new_task(store):
    heard = []

    def listen(execute, sql, params, many, context):
        heard.append(sql)
        return execute(sql, params, many, context)

    with connections[store.alias].execute_wrapper(listen):
        store.add([make_task()])
    assert [sql.split()[0] for sql in heard] == ["INSERT"]
    with CaptureQueriesContext(connections[store.alias]) as captured:
        store.add([make_task()])
    assert len(captured) == 1


def test_missing_tables_say_how_to_make_them(store, other):
    assert store.is_ready()
    other.execute(f"DROP TABLE {TASKS}")
    assert not store.is_ready()
    with pytest.raises(BackendUnavailableError, match=f"manage.py migrate --database {store.alias}"):
        store.add([make_task()])


def test_the_change_mark_tells_of_commits_by_others(store, other):
    mark = store.read_change_mark()
    store.add([make_task()])
    assert store.read_change_mark() == mark
    other.execute("UPDATE soc_tasks_engine_task SET due = due")
    assert store.read_change_mark() != mark


def test_the_engine_takes_the_write_lock_as_its_transactions_begin(store, other):
    connections.settings[store.alias]["OPTIONS"].pop("transaction_mode")
    connections[store.alias].close()
    other.execute("PRAGMA busy_timeout = 1")
    with store.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    # Those of the site stay as they were.
    with transaction.atomic(using=store.alias):
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


@pytest.fixture
def claimed(store):
    """A worker with a task in its hands, and one more that waits."""
    worker = store.join("here", 1, 1)
    store.add([make_task(name=name, named=False) for name in ("first", "second")])
    return worker, store.exchange(worker, [], 1)


def test_an_exchange_that_fails_leaves_everything_as_it_was(store, claimed, other, monkeypatch):
    worker, leased = claimed

    def fail(*_):
        # Some of it was written.
        assert not store.get_task("default", "first")
        raise ZeroDivisionError

    monkeypatch.setattr(store, "claim", fail)
    with pytest.raises(ZeroDivisionError):
        store.exchange(worker, done(*leased), 1)
    monkeypatch.undo()
    # Others can write at once.
    other.execute("PRAGMA busy_timeout = 1")
    other.execute("BEGIN IMMEDIATE")
    assert sorted(other.execute(f"SELECT name, state FROM {TASKS}").fetchall()) == [("first", 1), ("second", 0)]
    other.execute("ROLLBACK")
    assert names(store.exchange(worker, done(*leased), 9)) == ["second"]
    assert names(store.list_tasks()) == ["second"]


def test_an_exchange_that_cannot_be_undone_loses_its_connection(store, claimed, monkeypatch):
    worker, leased = claimed

    class Broken:
        """The driver's connection, which rolls nothing back."""

        def __init__(self, raw):
            self.raw = raw

        def __getattr__(self, name):
            return getattr(self.raw, name)

        def execute(self, sql, *parameters):
            if sql in ("COMMIT", "ROLLBACK"):
                raise sqlite3.OperationalError("disk I/O error")
            return self.raw.execute(sql, *parameters)

    connection = connections[store.alias]
    monkeypatch.setattr(connection, "connection", Broken(connection.connection))
    with pytest.raises(OperationalError, match="disk I/O error"):
        store.exchange(worker, done(*leased), 1)
    assert connection.connection is None
    assert names(store.list_tasks()) == ["first", "second"]
    assert names(store.exchange(worker, done(*leased), 1)) == ["second"]


@pytest.mark.parametrize("broken", ["", "BEGIN IMMEDIATE", "DELETE", "COMMIT"])
def test_an_exchange_is_quiet_until_its_commit(store, claimed, monkeypatch, broken):
    """What others do meanwhile goes on once, before the disk is waited for, however it ends."""
    worker, leased = claimed
    said = []

    class Quiet:
        def __enter__(self):
            said.append("quiet")

        def __exit__(self, *_):
            said.append("goes on")

    class Telling:
        """The driver's connection, and its cursor."""

        def __init__(self, raw):
            self.raw = raw

        def __getattr__(self, name):
            return getattr(self.raw, name)

        def cursor(self, *given):
            return Telling(self.raw.cursor(*given))

        def execute(self, sql, *parameters, method="execute"):
            said.append(sql.partition(" ")[0])
            if broken and sql.startswith(broken):
                raise sqlite3.OperationalError("disk I/O error")
            return getattr(self.raw, method)(sql, *parameters)

        def executemany(self, sql, *parameters):
            return self.execute(sql, *parameters, method="executemany")

    def exchange():
        return names(store.exchange(worker, done(*leased), 1, quiet=Quiet()))

    connection = connections[store.alias]
    with monkeypatch.context() as patch:
        patch.setattr(connection, "connection", Telling(connection.connection))
        if not broken:
            assert exchange() == ["second"]
            assert said[0] == "quiet"
            assert said[-2:] == ["goes on", "COMMIT"]
            return
        with pytest.raises(OperationalError, match="disk I/O error"):
            exchange()
    assert (said.count("quiet"), said.count("goes on")) == (1, 1)
    assert ("COMMIT" in said) == (broken == "COMMIT")
    # Undone, and the next one finds all as it was.
    assert exchange() == ["second"]


def test_an_exchange_meets_a_lock_as_any_transaction_does(store, claimed, other):
    worker, leased = claimed
    connections[store.alias].cursor().execute("PRAGMA busy_timeout = 1")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        store.exchange(worker, done(*leased), 1)
    other.execute("ROLLBACK")
    assert names(store.exchange(worker, done(*leased), 1)) == ["second"]


def test_an_exchange_may_be_part_of_a_transaction_and_be_listened_to(store, claimed):
    worker, leased = claimed
    with rolled_back(using=store.alias):
        assert names(store.exchange(worker, done(*leased), 1)) == ["second"]
    assert len(store.list_tasks()) == 2
    with CaptureQueriesContext(connections[store.alias]) as captured:
        store.exchange(worker, done(*leased), 1)
    words = [re.search("[A-Z]+", query["sql"])[0] for query in captured]
    assert words == ["BEGIN", "DELETE", "WITH", "UPDATE", "COMMIT"]


def test_who_is_told_of_a_failure_for_good_may_write_in_the_same_transaction(store, claimed, monkeypatch):
    worker, leased = claimed

    def tell(*_):
        with transaction.atomic(using=store.alias):
            store.add([make_task(name="told")])

    monkeypatch.setattr("soc_tasks.engine.hooks.tell_exhausted", tell)
    store.exchange(worker, [Verdict(leased[0], Outcome.EXHAUSTED, attempts=1, status=500)], 0)
    assert names(store.list_tasks()) == ["second", "told"]


def test_one_wake_for_each_transaction(store, monkeypatch):
    wakes = []
    monkeypatch.setattr("soc_tasks.engine.store.enqueue.wake", wakes.append)
    with transaction.atomic(using=store.alias):
        for _ in range(5):
            store.add([make_task()])
        with rolled_back(using=store.alias):
            store.add([make_task()])
        assert wakes == []
    assert wakes == [store.alias]
    with rolled_back(using=store.alias):
        store.add([make_task()])
    with transaction.atomic(using=store.alias):
        with rolled_back(using=store.alias):
            store.add([make_task()])
        store.add([make_task()])
    assert wakes == [store.alias] * 2


def test_get_store_refuses_what_it_cannot_use(monkeypatch, db):
    with pytest.raises(ConfigurationError, match="no alias"):
        get_store("nowhere")
    monkeypatch.setattr(type(connections["default"]), "vendor", "oracle")
    get_store.cache_clear()
    with pytest.raises(NotSupportedError, match="does not run on oracle"):
        get_store("default")
    get_store.cache_clear()


# What a claim costs must not grow with what waits, is scheduled, runs, or ended.


@pytest.fixture
def crowded(store):
    """100,000 rows: 40,000 due in two queues, 40,000 scheduled, 10,000 running, 10,000 names kept."""
    now = store.clock.now()
    states = {0: (0, now - 10**9), 1: (0, now - 10**9), 2: (0, now - 10**9), 3: (0, now - 10**9)}
    states |= dict.fromkeys(range(4, 8), (0, now + 3600 * SECOND))
    states |= {8: (1, now - 10**10), 9: (2, now + 3600 * SECOND)}
    rows = (
        (
            "default" if number % 20 else "other",
            f"n{number}",
            states[number % 10][0],
            states[number % 10][1] + number,
            77 if number % 10 == 8 else None,
            number % 10 == 9,
        )
        for number in range(100_000)
    )
    with transaction.atomic(using=store.alias), store.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {TASKS} (queue, name, state, due, owner, named, path, headers, body, start_id, created)"
            " VALUES (%s, %s, %s, %s, %s, %s, '/count', '{}', x'', '', 0)",
            rows,
        )
        cursor.execute("ANALYZE")
    return store


def plans_of(store, call):
    """Return the query plans of all statements that a call makes."""
    statements, plans = [], []

    def note(execute, sql, parameters, many, context):
        statements.append((sql, next(iter(parameters)) if many else parameters))
        return execute(sql, parameters, many, context)

    with connections[store.alias].execute_wrapper(note):
        call()
    for sql, parameters in statements:
        if sql.split()[0] in {"SELECT", "UPDATE", "DELETE", "WITH"}:
            plans += [row[-1] for row in store.select(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    return plans


def steps_of(store, call):
    """Return how many thousand steps SQLite's machine takes for a call: a measure that no other process disturbs."""
    steps = []
    connection = connections[store.alias]
    connection.ensure_connection()
    connection.connection.set_progress_handler(lambda: steps.append(1) and None, 1000)
    try:
        call()
    finally:
        connection.connection.set_progress_handler(None, 0)
    return len(steps)


def assert_no_scan(plans):
    scans = [
        plan
        for plan in plans
        if (plan.startswith("SCAN soc_tasks_engine_task") and "USING" not in plan) or "TEMP B-TREE FOR ORDER" in plan
    ]
    assert plans
    assert scans == []


def test_no_statement_of_the_worker_scans_the_table(crowded):
    worker = crowded.join("here", 1, 1)
    leased = []

    def work():
        leased.extend(crowded.exchange(worker, [], 50, {"default"}))
        crowded.exchange(worker, [], 0)
        crowded.next_due()
        crowded.next_suspect()
        crowded.claim_suspect(worker)
        crowded.beat(worker)
        crowded.leave(worker)

    assert_no_scan(plans_of(crowded, work))
    assert len(leased) == 50


def test_a_task_is_found_by_its_name_or_its_key(crowded):
    keyed = make_task(name=make_start_id(), named=False)
    crowded.add([keyed])

    def look(name):
        assert crowded.get_task("default", name)
        assert crowded.find_taken([make_task(name=name)])
        assert crowded.run_now("default", name)
        assert crowded.delete("default", name)

    for name in ("n1", keyed.name):
        plans = plans_of(crowded, lambda name=name: look(name))
        assert_no_scan(plans)
        assert any("INDEX soc_tasks_engine_names (queue=? AND name=?)" in plan for plan in plans), plans
    assert any("USING INTEGER PRIMARY KEY (rowid=?)" in plan for plan in plans), plans


def test_the_claim_is_served_by_the_index_of_waiting_tasks(crowded):
    worker = crowded.join("here", 1, 1)
    plans = plans_of(crowded, lambda: crowded.exchange(worker, [], 50, {"other"}))
    assert any("USING INDEX soc_tasks_engine_waiting (queue=? AND due<?)" in plan for plan in plans), plans


def test_a_claim_costs_the_same_in_a_crowd(crowded):
    worker = crowded.join("here", 1, 1)

    def claim():
        assert len(crowded.exchange(worker, [], 50)) == 50

    assert steps_of(crowded, claim) < 30


def test_a_paused_crowd_costs_nothing(crowded):
    worker = crowded.join("here", 1, 1)
    crowded.set_paused("default", True)
    assert steps_of(crowded, lambda: crowded.exchange(worker, [], 50)) < 30
    assert steps_of(crowded, crowded.next_due) < 5


def test_fair_claims_of_many_queues(store):
    with transaction.atomic(using=store.alias):
        for number in range(150):
            store.add([make_task(queue=f"q{number}") for _ in range(3)])
    worker = store.join("here", 1, 1)
    claimed = store.exchange(worker, [], 100)
    assert len({task.queue for task in claimed}) == 100
    total = 100
    while claimed := store.exchange(worker, [], 200):
        total += len(claimed)
    assert total == 450


def test_of_more_queues_than_fit_those_that_wait_longest_have_their_turn(store):
    store.add([make_task(queue="z")])
    with transaction.atomic(using=store.alias):
        for number in range(MOST_SHARES + 20):
            store.add([make_task(queue=f"q{number}")])
    worker = store.join("here", 1, 1)
    assert "z" in {task.queue for task in store.exchange(worker, [], 10)}


def test_shares_limit_each_queue(store):
    store.add([make_task(queue="a") for _ in range(5)])
    store.add([make_task(queue="b", name="b")])
    worker, now = store.join("here", 1, 1), store.clock.now()
    with store.writing() as cursor:
        leased = store.claim(cursor, worker, [Share("a", now, 2), Share("b", now, 2), Share("c", now, 2)], 10)
    assert len(leased) == 3
    assert "b" in names(leased)
