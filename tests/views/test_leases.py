"""Leases are kept for no longer than the work that they are for."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from soc_tasks import Iteration, iterative_task, startTask
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.models import ShardRow
from tests.specimen.models import Row
from tests.views.calls import route
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db


def leases():
    return set(ShardRow.objects.values_list("owner", "until"))


@pytest.fixture
def rows():
    return Row.objects.bulk_create(Row() for _ in range(3))


def test_one_that_is_held_back_and_paused_meanwhile_gives_its_lease_back(memory_backend, rows):
    seen, holds = [], [5]

    def throttle():
        if holds:
            Iteration.all()[0].pause()
            return holds.pop()
        return None

    def work(request, entities):
        seen.extend(entities)

    view = iterative_task(Row, throttle=throttle)(work)
    with route(view):
        startTask(view)
        deliver_first(memory_backend)
        deliver_first(memory_backend)
        [iteration] = Iteration.all()
        assert (iteration.status, leases(), memory_backend.tasks_now()) == ("paused", {("", None)}, [])
        iteration.resume()
        deliver_first(memory_backend)
    assert (seen, iteration.refresh().status) == (rows, "succeeded")


def test_one_that_another_was_in_the_way_of_gives_its_lease_back(memory_backend, rows, monkeypatch):
    seen = []

    def work(request, entities):
        seen.extend(entities)

    def fail(*args, **kwargs):
        raise OperationalError("database is locked")

    view = iterative_task(Row)(work)
    with route(view):
        startTask(view)
        deliver_first(memory_backend)
        [slice_] = memory_backend.tasks_now()
        with monkeypatch.context() as patched:
            patched.setattr(ModelLogic, "getBatchOfData", fail)
            deliver_first(memory_backend)
        assert leases() == {("", None)}
        assert ShardRow.objects.get().attempts == 0
        memory_backend.tasks[:] = [slice_]
        deliver_first(memory_backend)
    assert (seen, Iteration.all()[0].status) == (rows, "succeeded")


def test_one_that_has_lost_its_lease_takes_it_from_nobody(memory_backend, rows, monkeypatch):
    def fail(*args, **kwargs):
        ShardRow.objects.update(owner="another")
        raise OperationalError("database is locked")

    view = iterative_task(Row)(lambda request, entities: None)
    with route(view):
        startTask(view)
        deliver_first(memory_backend)
        monkeypatch.setattr(ModelLogic, "getBatchOfData", fail)
        deliver_first(memory_backend)
    assert ShardRow.objects.get().owner == "another"
