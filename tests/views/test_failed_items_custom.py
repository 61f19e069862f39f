"""Failed items of logics that are neither models nor kinds: found again by the keys of their batches."""

from __future__ import annotations

import pytest

from soc_tasks import Iteration, iterative_task, startTask
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen.models import Row
from tests.views.calls import route

pytestmark = pytest.mark.django_db
both = pytest.mark.parametrize("atomic", [False, True])


class Numbers:
    """Some numbers; the key is the least that a batch may begin with."""

    def __init__(self, numbers):
        self.numbers = list(numbers)

    def getBatchOfData(self, start_key=None, batch_size=4):
        rest = [number for number in self.numbers if number >= int(start_key or 0)]
        return rest[:batch_size], str(rest[batch_size]) if len(rest) > batch_size else None


class Listed:
    """A list; the key is the place in it where a batch begins."""

    def __init__(self, entities):
        self.entities = list(entities)

    def getBatchOfData(self, start_key=None, batch_size=2):
        first, end = int(start_key or 0), int(start_key or 0) + batch_size
        return self.entities[first:end], str(end) if end < len(self.entities) else None


class Named(Listed):
    """Dicts, that know their keys: they may change, and come and go."""

    def getBatchOfData(self, start_key=None, batch_size=2):
        rest = [entity for entity in self.entities if entity["name"] >= (start_key or "")]
        return rest[:batch_size], rest[batch_size]["name"] if len(rest) > batch_size else None

    def get_key(self, entity):
        return entity["name"]


class Rows:
    """Rows of a model, by a logic of one's own."""

    def getBatchOfData(self, start_key=None, batch_size=4):
        rows = list(Row.objects.filter(pk__gte=int(start_key or 0)).order_by("pk")[: batch_size + 1])
        return rows[:batch_size], str(rows[batch_size].pk) if len(rows) > batch_size else None


class Run:
    """An iteration over a logic that skips what fails, and its retry.

    Attributes:
        bad: entities that fail.
        seen: entities that were done.
    """

    def __init__(self, task_queues, logic, bad, **options):
        self.queues, self.bad, self.seen = task_queues, list(bad), []
        self.view = iterative_task(logic, on_error="skip", **options)(self.work)
        with route(self.view):
            handle = startTask(self.view)
            task_queues.process_task_queues()
        self.iteration = Iteration.get(handle.iteration)

    def work(self, request, entities):
        if any(entity in self.bad for entity in entities):
            raise ValueError("on purpose")
        self.seen.extend(entities)

    def retry(self, bad=()):
        self.bad, self.seen = list(bad), []
        with route(self.view):
            retry = self.iteration.retry_failed()
            self.queues.process_task_queues()
        assert retry.refresh().status == "succeeded"
        return self.seen

    def count(self):
        return self.iteration.count_failed_items()


@both
def test_the_first_entity_behind_a_start_key_is_found_again(task_queues, atomic):
    run = Run(task_queues, Numbers(range(30)), [10], start_key="10", atomic=atomic)
    assert sorted(set(run.seen)) == list(range(11, 30))
    assert run.retry() == [10]
    assert run.count() == 0


@both
def test_the_first_of_all_is_found_again(task_queues, atomic):
    run = Run(task_queues, Numbers(range(30)), [0], atomic=atomic)
    assert run.retry() == [0]
    assert run.count() == 0


@pytest.mark.parametrize("gone", [104, 108, 109])
def test_what_follows_an_item_that_is_gone_is_not_done_twice(task_queues, gone):
    logic = Numbers(range(100, 110))
    run = Run(task_queues, logic, [gone])
    logic.numbers.remove(gone)
    assert run.retry() == []
    assert run.count() == 0


@pytest.mark.parametrize("change", ["put", "taken", "all taken"])
def test_an_item_is_done_whatever_becomes_of_those_behind_it(task_queues, change):
    logic = Numbers(range(100, 120, 2))
    run = Run(task_queues, logic, [104])
    if change == "put":
        logic.numbers.insert(3, 105)
    else:
        del logic.numbers[3 : 4 if change == "taken" else None]
    assert run.retry() == [104]
    assert run.count() == 0


@both
def test_equal_entities_are_items_of_their_own(task_queues, atomic):
    run = Run(task_queues, Listed(["x", "a", "x", "b", "x"]), ["x"], atomic=atomic)
    assert run.count() == 3
    assert run.retry() == ["x", "x", "x"]
    assert run.count() == 0


@both
def test_of_equal_entities_that_fail_again_each_stays(task_queues, atomic):
    run = Run(task_queues, Listed(["x", "a", "x", "b", "x"]), ["x"], atomic=atomic)
    assert run.retry(bad=["x"]) == []
    assert [item.attempts for item in run.iteration.failed_items()] == [2, 2, 2]
    assert run.retry() == ["x", "x", "x"]


def test_a_logic_that_knows_the_keys_of_its_entities(task_queues):
    """The last one is gone and another has come, which no other logic can tell."""
    entities = [{"name": name, "word": ""} for name in "abcde"]
    logic = Named(entities)
    run = Run(task_queues, logic, [entities[1], entities[4]])
    mended = {"name": "b", "word": "mended"}
    logic.entities = [entities[0], mended, *entities[2:4], {"name": "f", "word": "new"}]
    assert run.retry() == [mended]
    assert run.count() == 0


def test_a_logic_that_knows_the_keys_in_an_order(task_queues):
    class Ordered(Named):
        def getBatchOfData(self, start_key=None, batch_size=2, order=None):
            assert order == "name"
            return super().getBatchOfData(start_key, batch_size)

        def get_key(self, entity, *, order):
            return entity[order]

    entities = [{"name": name} for name in "abcde"]
    logic = Ordered(entities)
    run = Run(task_queues, logic, entities[1:3], order="name")
    logic.entities.pop(1)
    assert run.retry() == [{"name": "c"}]


def test_rows_by_a_logic_of_ones_own_are_told_by_their_keys(task_queues):
    """Also the last one, with another behind it since."""
    rows = Row.objects.bulk_create(Row() for _ in range(6))
    run = Run(task_queues, Rows(), [rows[2], rows[5]])
    rows[5].delete()
    Row.objects.create()
    assert run.retry() == [rows[2]]
    assert run.count() == 0


@both
def test_a_get_key_that_returns_none_is_refused(task_queues, atomic):
    class Wrong(Listed):
        def get_key(self, entity):
            return 5

    def work(request, entities):
        raise ValueError("on purpose")

    view = iterative_task(Wrong("abc"), on_error="skip", atomic=atomic)(work)
    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.count_failed_items()) == ("failed", 0)
    assert "get_key of Wrong must return the key" in iteration.error
