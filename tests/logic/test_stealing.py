"""Shards that take over a part of another's rest: all rows once, one end, whatever is delivered when."""

from __future__ import annotations

import random

import pytest

from soc_tasks import Iteration
from soc_tasks.logic import stealing
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.models import ShardRow
from soc_tasks.state import get_state
from tests.logic.schedules import RUN, Schedule
from tests.specimen.models import Entry, Row
from tests.specimen.rows import make_entries

pytestmark = pytest.mark.django_db

FIELDS = ["pk", "title", "size", "program", "alias"]


@pytest.fixture
def eager(monkeypatch):
    """Let shards steal however little is left."""
    monkeypatch.setattr(stealing, "LEAST_SECONDS", 0)
    monkeypatch.setattr(stealing, "LEAST_BATCHES", 1)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_schedule_leaves_what_one_pass_leaves(monkeypatch, eager, field, atomic, seed):
    entries = make_entries(45)
    logic = ModelLogic(Entry, field)
    schedule = Schedule(monkeypatch, random.Random(f"{field} {atomic} {seed}"), logic, atomic=atomic)
    schedule.go()
    assert schedule.find_wrong([entry.pk for entry in entries]) == {}
    # Whatever comes again after the end does nothing.
    before = list(ShardRow.objects.values())
    schedule.waiting += schedule.delivered
    schedule.go()
    assert list(ShardRow.objects.values()) == before
    assert schedule.find_wrong([entry.pk for entry in entries]) == {}


@pytest.mark.parametrize("atomic", [False, True])
def test_a_lopsided_division_is_made_even(monkeypatch, eager, atomic):
    rows = Row.objects.bulk_create(Row() for _ in range(400))
    schedule = Schedule(monkeypatch, random.Random(1), ModelLogic(Row), atomic=atomic, most=0, batch_size=5)
    assert [shard.expected for shard in get_state().list_shards(RUN)] == [1, 1, 1, 397]
    schedule.chance.choice = lambda options: options[0]
    schedule.chance.random = lambda: 1.0
    schedule.go()
    assert schedule.find_wrong([row.pk for row in rows]) == {}
    done = [shard.done for shard in Iteration.get(RUN).shards]
    assert max(done) <= 2 * min(done)
