"""Dry runs of iterations that are under way, or were."""

from __future__ import annotations

import json

import pytest

from soc_tasks import Iteration, defer_iteration_with_finalize
from soc_tasks.logic.dry_runs import DryRun, DryRunError, Limits
from soc_tasks.models import ShardRow
from tests.specimen import iterating
from tests.specimen.models import Entry
from tests.specimen.rows import make_entries
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture(autouse=True)
def entries():
    iterating.acts.clear()
    make_entries(35)


def test_a_shard_that_looks_for_more_has_nothing_left(memory_backend, task_queues):
    """What it has asked for is its owner's yet."""
    defer_iteration_with_finalize(Entry.objects.all(), iterating.callback, iterating.finalize, _shards=2, _batch_size=5)
    deliver_first(memory_backend)
    iteration = Iteration.all()[0].pause()
    entries = list(Entry.objects.order_by("pk"))
    first, second = ShardRow.objects.order_by("index")
    second.cursor, second.done = json.dumps([entries[20].pk]), 3
    second.save()
    first.drained, first.done = True, 17
    first.wants, first.start, first.end = 1, json.dumps([entries[28].pk]), None
    first.save()
    report = DryRun(Limits()).try_iteration(iteration.id)
    assert (report.rows, report.done_before, report.shards) == (15, 20, 1)
    second.status = "done"
    second.save()
    with pytest.raises(DryRunError, match="no rows left"):
        DryRun(Limits()).try_iteration(iteration.id)


def test_a_deferred_iteration_that_was_cancelled_has_no_plan_any_more(memory_backend, task_queues):
    defer_iteration_with_finalize(Entry.objects.all(), iterating.callback, iterating.finalize)
    deliver_first(memory_backend)
    iteration = Iteration.all()[0].cancel()
    with pytest.raises(DryRunError, match="were dropped when it was cancelled"):
        DryRun(Limits()).try_iteration(iteration.id)
