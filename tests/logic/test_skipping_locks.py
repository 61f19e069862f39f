"""Entities that fail in several shards at one moment: each is kept once, and the budget is that of all."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connections

from soc_tasks.backends import get_backend
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.skipping import ErrorBudgetExceededError
from soc_tasks.logic.slices import run_slice
from soc_tasks.meta import SliceMessage
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.databases import on_every_database

RUN = "0123456789abcdef" * 2
SHARDS = 6


class One:
    """One entity for each shard."""

    def getBatchOfData(self, start_key=None, batch_size=None):
        return [1], None


def fail_at_once(monkeypatch, budget):
    """Have all shards fail at one moment; return what they raised, and what was queued after them."""
    raised, queued, met = [], [], threading.Barrier(SHARDS)
    options = {"path": "/x", "script_name": "", "context": "{}", "inherited": {}, "shards": SHARDS}
    shards = [ShardRecord(iteration=RUN, index=index) for index in range(SHARDS)]
    get_state().create_iteration(IterationRecord(id=RUN, name="run", unfinished=SHARDS, options=options), shards)
    monkeypatch.setattr(get_backend(), "submit", lambda tasks, using=None: queued.extend(tasks))
    plan = Plan(logic=One(), finalize=lambda: None, on_error="skip", error_budget=budget)

    def process(entities, context):
        met.wait(20)
        raise ValueError("on purpose")

    def work(index):
        now = time.monotonic()
        slice_budget = Budget(seconds=60, stopping=lambda: False, started=now, deadline=now + 60)
        message = SliceMessage(iteration=RUN, shard=index, step=0, epoch=0)
        try:
            run_slice(message, plan, process, slice_budget, lambda error: isinstance(error, ErrorBudgetExceededError))
        except Exception as error:
            raised.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(SHARDS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised, queued


@on_every_database
@pytest.mark.parametrize("budget", [0, 2, 5])
def test_no_more_are_given_up_than_the_budget_allows(engine_database, monkeypatch, budget):
    raised, queued = fail_at_once(monkeypatch, budget)
    assert [type(error) for error in raised] == [ErrorBudgetExceededError] * (SHARDS - budget)
    assert get_state().sum_shards(RUN) == (0, budget)
    assert get_state().count_failed_items(RUN)[0] == budget
    # There is no end yet.
    assert queued == []


@on_every_database
def test_the_last_of_them_ends_the_run(engine_database, monkeypatch):
    raised, queued = fail_at_once(monkeypatch, None)
    assert raised == []
    assert sorted(item.shard for item in get_state().list_failed_items(RUN)) == list(range(SHARDS))
    assert len(queued) == 1
