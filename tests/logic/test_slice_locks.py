"""Slices whose locks others hold, and whose transactions a database undoes: later, uncounted, and no batch twice."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from django.db import OperationalError, connections, transaction

from soc_tasks import FatalTaskError
from soc_tasks.errors import BackendUnavailableError
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import start_run
from soc_tasks.logic.slices import run_slice
from soc_tasks.meta import Inherited, SliceMessage
from soc_tasks.models import ReceiptRow
from soc_tasks.state import get_state
from soc_tasks.state.base import BusyError, IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.locks import is_lock_error
from soc_tasks.values import TaskInfo
from soc_tasks.views.running import run_once
from tests.databases import VENDORS, on_every_database

RUN = "0123456789abcdef" * 2
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
INFO = TaskInfo(name="a", queue="default", start_id="a")


class Numbers:
    """0 to 5, two at a time."""

    def getBatchOfData(self, filter, start_key, batch_size=None):
        first = int(start_key or 0)
        return list(range(first, first + 2)), str(first + 2) if first < 4 else None


def make_error(number):
    """Return an error as Django raises it: by its SQLSTATE for PostgreSQL, by its number for MySQL and MariaDB."""
    cause = Exception("driver") if isinstance(number, str) else Exception(number, "driver")
    if isinstance(number, str):
        cause.sqlstate = number
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    return error


@pytest.fixture
def iteration(engine_database):
    shard = ShardRecord(iteration=RUN, index=0)
    options = {"path": "/count", "script_name": "", "context": "{}", "inherited": {}}
    get_state().create_iteration(IterationRecord(id=RUN, name="run", options=options), [shard])
    return shard


@pytest.fixture
def run(iteration):
    """Run a slice with a view."""

    def run(process, atomic=False):
        shard = get_state().list_shards(RUN)[0]
        message = SliceMessage(iteration=RUN, shard=0, step=shard.step, epoch=shard.epoch)
        now = time.monotonic()
        budget = Budget(seconds=60, stopping=lambda: False, started=now, deadline=now + 60)
        plan = Plan(logic=Numbers(), atomic=atomic)
        return run_slice(message, plan, process, budget, lambda error: isinstance(error, FatalTaskError))

    return run


def read():
    [shard] = get_state().list_shards(RUN)
    return shard.status, shard.done, shard.attempts, shard.owner


@on_every_database
def test_a_batch_that_is_done_waits_for_whoever_holds_the_shard(run):
    seen, held = [], []

    def hold(entered):
        try:
            with get_state().locked_shard(RUN, 0):
                entered.set()
                threading.Event().wait(0.3)
        finally:
            connections.close_all()

    def process(entities, context):
        seen.extend(entities)
        # As a copy of the delivery does that looks whether the shard is free, or a heartbeat.
        entered = threading.Event()
        held.append(threading.Thread(target=hold, args=(entered,)))
        held[-1].start()
        assert entered.wait(10)

    assert run(process)
    for thread in held:
        thread.join()
    assert seen == list(range(6))
    assert read() == ("done", 6, 0, "")


@pytest.mark.parametrize("number", ["40P01", "40001", 1213, 1020, 1205])
def test_a_batch_that_is_done_is_written_down_again_after_a_conflict(run, monkeypatch, number):
    seen, errors, save = [], [make_error(number)] * 2, get_state().save_shard

    def fail_twice(shard):
        if seen and errors:
            raise errors.pop()
        save(shard)

    monkeypatch.setattr(get_state(), "save_shard", fail_twice)
    assert run(lambda entities, context: seen.extend(entities))
    assert (seen, errors) == (list(range(6)), [])
    assert read() == ("done", 6, 0, "")


def test_a_conflict_that_does_not_end_is_busy(run, monkeypatch):
    seen, save = [], get_state().save_shard

    def fail(shard):
        if seen:
            raise make_error(1205)
        save(shard)

    monkeypatch.setattr(get_state(), "save_shard", fail)
    with pytest.raises(ShardBusyError):
        run(lambda entities, context: seen.extend(entities))
    assert seen == [0, 1]
    assert read()[:3] == ("running", 0, 0)


@pytest.mark.parametrize("number", ["40P01", "40001", 1213, 1020])
def test_an_atomic_batch_that_was_chosen_as_a_victim_comes_again_uncounted(run, number):
    calls = []

    def process(entities, context):
        calls.append(entities)
        if len(calls) == 2:
            raise make_error(number)

    with pytest.raises(ShardBusyError):
        run(process, atomic=True)
    assert read() == ("running", 2, 0, "")
    assert run(process, atomic=True)
    assert calls == [[0, 1], [2, 3], [2, 3], [4, 5]]


def test_a_next_task_that_was_chosen_as_a_victim_is_likewise(run):
    def process(entities, context):
        raise BackendUnavailableError("no") from make_error(1213)

    with pytest.raises(ShardBusyError):
        run(process, atomic=True)
    assert read() == ("running", 0, 0, "")


@pytest.mark.parametrize(("number", "atomic"), [("55P03", True), (1205, True), ("XX000", True), (1213, False)])
def test_what_a_view_runs_into_by_itself_is_counted(run, number, atomic):
    """A lock that it waits for in vain may be its own; a conflict of its own transactions is its own."""

    def process(entities, context):
        raise make_error(number)

    with pytest.raises(OperationalError):
        run(process, atomic=atomic)
    assert read() == ("running", 0, 1, "")


@pytest.mark.parametrize(("number", "busy"), [(1213, True), ("40P01", True), ("55P03", True), ("XX000", False)])
def test_a_receipt_that_cannot_be_had_is_busy(iteration, monkeypatch, number, busy):
    def fail(*_):
        raise make_error(number)

    monkeypatch.setattr(get_state(), "claim_receipt", fail)
    with pytest.raises(BusyError if busy else OperationalError):
        run_once(
            TaskInfo(name="a", queue="default", start_id="a"), lambda: pytest.fail("it ran"), atomic=True, using=None
        )


def swallow_deadlock(alias):
    """Write, and run into a deadlock as its victim, which MySQL undoes whole; and do as if nothing had happened."""
    met, blocked = threading.Barrier(2), threading.Event()
    rows = ReceiptRow.objects.using(alias)

    def write(name):
        rows.filter(start_id=name).update(created=datetime.now(UTC))

    def be_in_the_way():
        try:
            with transaction.atomic(using=alias):
                # Who has changed more is not the victim.
                rows.bulk_create(ReceiptRow(start_id=f"more-{number}", created=MOMENT) for number in range(100))
                write("second")
                met.wait(10)
                blocked.wait(10)
                write("first")
                transaction.set_rollback(True, using=alias)
        finally:
            connections.close_all()

    other = threading.Thread(target=be_in_the_way)
    other.start()
    rows.create(start_id="effect", created=MOMENT)
    write("first")
    met.wait(10)
    blocked.set()
    with suppress(OperationalError):
        write("second")
    other.join()


@pytest.fixture
def two_rows(engine_database):
    rows = ReceiptRow.objects.using(engine_database)
    rows.bulk_create(ReceiptRow(start_id=name, created=MOMENT) for name in ("first", "second"))
    return rows


on_mariadb = pytest.mark.parametrize("engine_database", VENDORS[2:], indirect=True)


@on_mariadb
def test_a_batch_that_swallows_a_deadlock_is_not_taken_for_done(two_rows, run):
    with pytest.raises(ShardBusyError):
        run(lambda entities, context: swallow_deadlock(two_rows.db), atomic=True)
    assert read() == ("running", 0, 0, "")
    assert not two_rows.filter(start_id="effect").exists()


@on_mariadb
def test_a_task_that_swallows_a_deadlock_is_not_taken_for_done(two_rows):
    with pytest.raises(RuntimeError, match="rolled back"):
        run_once(INFO, lambda: swallow_deadlock(two_rows.db), atomic=True, using=None)
    assert sorted(row.start_id for row in two_rows.all()) == ["first", "second"]


@pytest.mark.parametrize("error", [make_error(1213), make_error("55P03"), make_error("XX000")])
def test_a_start_that_others_are_in_the_way_of_is_busy(engine_database, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(get_state(), "create_iteration", fail)
    with pytest.raises(BusyError if is_lock_error(error) else OperationalError):
        start_run(
            start_id=RUN,
            name="run",
            path="/count",
            script_name="",
            plan=Plan(logic=Numbers()),
            context={},
            inherited=Inherited(queue="default"),
        )


def test_a_lock_is_told_by_every_driver():
    error = OperationalError("could not obtain lock on row")
    error.__cause__ = Exception()
    assert not is_lock_error(error)
    # psycopg2's name for it.
    error.__cause__.pgcode = "55P03"
    assert is_lock_error(error)
