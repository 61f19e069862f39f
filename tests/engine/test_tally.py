"""Counts of attempts: what a worker adds to its table, and what becomes of them while that is not to be had."""

from __future__ import annotations

import logging

import pytest
from django.db import OperationalError

from soc_tasks.engine.clock import SECOND, FakeClock
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.rows import Leased
from soc_tasks.engine.tally import MINUTE, PATIENCE, Tally
from soc_tasks.engine.verdicts import Outcome, Verdict
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer, RetryOptions
from tests.databases import on_every_database
from tests.engine.running import until
from tests.engine.tasks import make_task


class Keeper:
    """Keeps what it is given, or fails."""

    def __init__(self):
        self.kept = []
        self.fails = False

    def add_minutes(self, records):
        if self.fails:
            raise OperationalError("gone")
        self.kept += records


def verdict(queue="default", outcome=Outcome.DONE, **more):
    leased = Leased(1, queue, "n", 0, "/", "", "{}", b"", "", "", False, 0, 1, 0, 0, None, None, 0, 0, False, "", None)
    return Verdict(leased, outcome, **more)


def test_counts_that_cannot_be_written_wait_and_others_tell_why(caplog):
    keeper, tally, clock = Keeper(), Tally(), FakeClock(600 * MINUTE)
    keeper.fails = True
    for _ in range(3):
        tally.count([verdict(seconds=0.5)], clock.now())
        with caplog.at_level(logging.INFO):
            assert tally.flush(keeper)
    assert not caplog.records
    keeper.fails = False
    tally.flush(keeper)
    assert keeper.kept == [MinuteRecord(600 * MINUTE, "default", 3, 0, 0, 3 * SECOND // 2)]


def test_what_waits_longer_than_an_hour_is_forgotten():
    keeper, tally, clock = Keeper(), Tally(), FakeClock(600 * MINUTE)
    keeper.fails = True
    tally.count([verdict("old")], clock.now())
    clock.advance((PATIENCE + MINUTE) / SECOND)
    tally.count([verdict("new")], clock.now())
    tally.flush(keeper)
    keeper.fails = False
    tally.flush(keeper)
    assert [record.queue for record in keeper.kept] == ["new"]


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Outcome.DONE, (1, 0, 0)),
        (Outcome.RETRY, (0, 1, 0)),
        (Outcome.EXHAUSTED, (0, 1, 1)),
        (Outcome.BUSY, None),
        (Outcome.UNKNOWN, None),
        (Outcome.RETURNED, None),
    ],
)
def test_what_each_outcome_counts_as(outcome, counts):
    keeper, tally = Keeper(), Tally()
    tally.count([verdict(outcome=outcome)], 0)
    tally.flush(keeper)
    assert [tuple(record[2:5]) for record in keeper.kept] == ([] if counts is None else [counts])


@on_every_database
def test_a_worker_leaves_what_it_has_counted(engine_database):
    store = get_store(engine_database)
    store.add(
        [
            make_task(),
            make_task(),
            make_task(queue="other"),
            make_task("/answer/500", retry=RetryOptions(max_attempts=1)),
        ]
    )
    assert Worker(store.alias).run_until_empty() == 4
    counted = {}
    for record in store.list_minutes(0):
        succeeded, failed, dead, spent = counted.get(record.queue, (0, 0, 0, 0))
        counted[record.queue] = (
            succeeded + record.succeeded, failed + record.failed, dead + record.dead, spent + record.spent
        )  # fmt: skip
    assert {queue: counts[:3] for queue, counts in counted.items()} == {"default": (2, 1, 1), "other": (1, 0, 0)}
    assert all(0 < counts[3] < 60 * SECOND for counts in counted.values())


@on_every_database
def test_what_is_given_back_unrun_is_no_attempt(engine_database):
    """The only thread is held until what waits behind it has gone back, as on a machine that is busy."""
    store = get_store(engine_database)

    def dispatch(task, delivery):
        if task.name == "slow":
            until(lambda: sum(record.state == "running" for record in store.list_tasks()) == 1)
        return Answer(status=200)

    store.add([make_task(name="slow")] + [make_task() for _ in range(4)])
    assert Worker(store.alias, threads=1, dispatch=dispatch).run_until_empty() == 5
