"""The number that a shard's work is told stays below that of the shards, whoever takes over whose range."""

from __future__ import annotations

import pytest

from soc_tasks import (
    Iteration,
    ModelLogic,
    defer_iteration_with_finalize,
    get_deferred_shard_index,
    iterative_task,
    startTask,
)
from soc_tasks.logic import stealing
from soc_tasks.logic.budgets import Budget
from tests.logic.schedules import lopsided
from tests.specimen import iterating
from tests.specimen.models import Row
from tests.views.calls import route

pytestmark = pytest.mark.django_db

SHARDS = 4
NUMBER = 160


@pytest.fixture
def rows():
    """Rows of which `lopsided` puts all but three into the last range."""
    return Row.objects.bulk_create(Row() for _ in range(NUMBER))


@pytest.fixture
def taken(monkeypatch):
    """Let shards steal however little is left, each slice be one batch, and note who took over which range."""
    monkeypatch.setattr(stealing, "LEAST_SECONDS", 0)
    monkeypatch.setattr(stealing, "LEAST_BATCHES", 1)
    monkeypatch.setattr(Budget, "is_used_up", lambda self: True)
    found, move = [], stealing._move

    def note(thief, victim, expected):
        found.append((thief.index, victim.index))
        move(thief, victim, expected)

    monkeypatch.setattr(stealing, "_move", note)
    return found


class Lopsided(ModelLogic):
    """Divides as `lopsided` does."""

    def find_key_ranges(self, shard_count, **options):
        return super().find_key_ranges(shard_count, **{**options, "getter": lopsided})


def check(iteration, rows, visits, taken):
    """Compare the visits, pairs of a primary key and a number, with what was taken over."""
    assert (iteration.status, iteration.done) == ("succeeded", NUMBER)
    assert sorted(pk for pk, _ in visits) == [row.pk for row in rows]
    assert {number for _, number in visits} == set(range(SHARDS))
    # Each of those that were done first worked on the crowded range, under its own number.
    crowded = [number for pk, number in visits if pk in {row.pk for row in rows[SHARDS - 1 :]}]
    assert set(crowded) == set(range(SHARDS))
    assert {thief for thief, _ in taken} >= set(range(SHARDS - 1))
    assert all(thief < SHARDS and victim < SHARDS for thief, victim in taken)


@pytest.mark.parametrize("atomic", [False, True])
def test_deferred_callbacks(task_queues, rows, taken, atomic):
    handle = defer_iteration_with_finalize(
        Row.objects.all(),
        iterating.callback,
        iterating.finalize,
        lopsided,
        _atomic=atomic,
        _shards=SHARDS,
        _batch_size=2,
        _delete_marker=False,
    )
    task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    check(iteration, rows, [visit[:2] for visit in iterating.visits], taken)
    assert iterating.ends == [(None, (), {})]
    assert [shard.index for shard in iteration.shards] == list(range(SHARDS))


@pytest.mark.parametrize("atomic", [False, True])
def test_iterative_views(task_queues, rows, taken, atomic):
    visits, told, ends = [], set(), []

    @iterative_task(
        Lopsided(Row),
        shards=SHARDS,
        batch_size=2,
        atomic=atomic,
        finalize=lambda: ends.append(get_deferred_shard_index()),
    )
    def view(request, entities):
        told.add((request.task.shard, get_deferred_shard_index()))
        visits.extend((entity.pk, get_deferred_shard_index()) for entity in entities)

    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
    check(Iteration.get(handle.iteration), rows, visits, taken)
    assert told == {(number, number) for number in range(SHARDS)}
    assert ends == [None]
