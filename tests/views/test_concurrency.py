"""How many shards work at a time: those above the limit park between batches, and are woken without being lost."""

from __future__ import annotations

import pytest

from soc_tasks import FatalTaskError, Iteration, iterative_task, startTask
from soc_tasks.logic import stealing
from soc_tasks.models import IterationRow, ShardRow
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen.models import Row
from tests.views.calls import route
from tests.views.test_iterative import deliver_first

both_ways = pytest.mark.parametrize("atomic", [False, True])


@pytest.fixture
def rows(db, monkeypatch):
    # Each shard works on its own range alone: what is stolen is tested elsewhere.
    monkeypatch.setattr(stealing, "LEAST_BATCHES", 10**6)
    return Row.objects.bulk_create(Row() for _ in range(40))


class Site:
    """An iteration in four shards of ten rows; each batch is a slice, and tells what the shards are at."""

    def __init__(self, **options):
        self.seen, self.ended, self.at_work, self.act = [], [], [], lambda iteration, entities: None

        def view(request, entities):
            iteration = Iteration.get(request.task.iteration)
            self.act(iteration, entities)
            self.seen.extend(entity.pk for entity in entities)
            self.at_work.append(count("running"))

        options = {"shards": 4, "batch_size": 3, "time_limit": 1e-9, **options}
        self.view = iterative_task(Row, finalize=lambda: self.ended.append(1), **options)(view)

    def check(self, iteration, rows):
        assert sorted(self.seen) == [row.pk for row in rows]
        assert self.ended == [1]
        iteration.refresh()
        assert (iteration.status, iteration.done) == ("succeeded", 40)
        assert {shard.status for shard in iteration.shards} == {"done"}
        assert IterationRow.objects.get(pk=iteration.id).parked == 0


def count(status):
    return ShardRow.objects.filter(status=status).count()


@pytest.fixture
def begun(memory_backend):
    """Start an iteration, and deliver its start alone."""

    def begin(site):
        handle = startTask(site.view)
        deliver_first(memory_backend)
        return Iteration.get(handle.iteration)

    return begin


@both_ways
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9])
def test_no_more_work_than_may_and_all_comes_to_its_end(task_queues, rows, begun, atomic, limit):
    site = Site(atomic=atomic)
    with route(site.view):
        iteration = begun(site).set_concurrency(limit)
        assert iteration.concurrency == limit
        task_queues.process_task_queues()
    # The first shard to come began while the others were not parked yet.
    assert max(site.at_work[4:]) <= limit
    site.check(iteration, rows)


@both_ways
def test_one_that_is_over_the_limit_parks_without_a_task_and_another_ones_end_wakes_it(
    memory_backend, task_queues, rows, begun, atomic
):
    site = Site(atomic=atomic, time_limit=None)
    with route(site.view):
        iteration = begun(site).set_concurrency(2)
        deliver_first(memory_backend)
        deliver_first(memory_backend)
        assert [shard.status for shard in iteration.refresh().shards] == ["parked", "parked", "running", "running"]
        assert site.seen == []
        assert len(memory_backend.tasks_now()) == 2
        deliver_first(memory_backend)
        assert [shard.status for shard in iteration.refresh().shards] == ["running", "parked", "done", "running"]
        assert len(site.seen) == 10
        task_queues.process_task_queues()
    site.check(iteration, rows)


@both_ways
def test_a_limit_takes_effect_behind_the_batch_that_runs(memory_backend, task_queues, rows, begun, atomic):
    site = Site(atomic=atomic, time_limit=None)
    site.act = lambda iteration, entities: iteration.set_concurrency(1) if not site.seen else None
    with route(site.view):
        iteration = begun(site)
        deliver_first(memory_backend)
        assert len(site.seen) == 3
        assert [shard.status for shard in iteration.refresh().shards] == ["parked", "running", "running", "running"]
        task_queues.process_task_queues()
    site.check(iteration, rows)


@pytest.mark.parametrize("limit", [3, None])
def test_a_raised_limit_wakes(memory_backend, task_queues, rows, begun, limit):
    site = Site()
    with route(site.view):
        iteration = begun(site).set_concurrency(1)
        for _ in range(3):
            deliver_first(memory_backend)
        assert count("parked") == 3
        iteration.set_concurrency(limit)
        assert count("parked") == (1 if limit else 0)
        assert len(memory_backend.tasks_now()) == (3 if limit else 4)
        task_queues.process_task_queues()
    site.check(iteration, rows)


@both_ways
def test_every_delivery_twice_and_late(memory_backend, task_queues, rows, begun, atomic):
    site, delivered, limits = Site(atomic=atomic), [], [1, 3, 2, None, 1, 2] * 10
    with route(site.view):
        iteration = begun(site)
        while tasks := memory_backend.tasks_now():
            memory_backend.tasks[:] = []
            iteration.set_concurrency(limits.pop())
            tasks += memory_backend.tasks_now()
            memory_backend.tasks[:] = []
            for one in [*tasks, *delivered[-12:], *tasks]:
                memory_backend.tasks.insert(0, one)
                deliver_first(memory_backend)
            delivered += tasks
    site.check(iteration, rows)


def test_a_late_delivery_wakes_what_was_passed_over(memory_backend, task_queues, rows, begun):
    """Whoever makes room does not wait for a parked shard that somebody looks at."""
    site = Site()
    with route(site.view):
        iteration = begun(site).set_concurrency(1)
        late = memory_backend.tasks_now()[0]
        task_queues.process_task_queues()
        ShardRow.objects.filter(iteration=iteration.id, index__lt=4).update(cursor=None, done=0, status="running")
        ShardRow.objects.filter(iteration=iteration.id, index=4).delete()
        ShardRow.objects.filter(iteration=iteration.id, index=0).update(status="parked")
        IterationRow.objects.update(status="running", unfinished=1, parked=1, finished=None)
        site.seen.clear()
        memory_backend.tasks.insert(0, late)
        deliver_first(memory_backend)
        assert (count("parked"), IterationRow.objects.get().parked) == (0, 0)
        assert len(memory_backend.tasks_now()) == 1
        task_queues.process_task_queues()
    assert len(site.seen) == 10
    assert iteration.refresh().status == "succeeded"


@both_ways
def test_pause_and_resume_strand_no_parked_shard(memory_backend, task_queues, rows, begun, atomic):
    site = Site(atomic=atomic)
    site.act = lambda iteration, entities: iteration.pause() if len(site.seen) in (9, 21) else None
    with route(site.view):
        iteration = begun(site).set_concurrency(2)
        for _ in range(3):
            task_queues.process_task_queues()
            if iteration.refresh().status == "paused":
                assert count("parked") == 2 or len(site.seen) > 20
                # It holds for what comes after, too.
                iteration.set_concurrency(1)
                iteration.resume()
    site.check(iteration, rows)
    assert max(site.at_work[-5:]) == 1


def test_a_shard_that_fails_for_good_is_resumed_with_those_that_are_parked(task_queues, rows, begun):
    site, broken = Site(), [True]

    def fail(iteration, entities):
        if broken and rows[-1].pk in [entity.pk for entity in entities]:
            raise FatalTaskError("broken")

    site.act = fail
    with route(site.view):
        iteration = begun(site).set_concurrency(1)
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        assert (iteration.refresh().status, count("parked")) == ("failed", 3)
        iteration.set_concurrency(2)
        broken.clear()
        iteration.resume()
        task_queues.process_task_queues()
    site.check(iteration, rows)


def test_a_cancelled_one_wakes_nobody(task_queues, rows, begun):
    site = Site(time_limit=None)
    site.act = lambda iteration, entities: iteration.cancel() if len(site.seen) > 8 else None
    with route(site.view):
        iteration = begun(site).set_concurrency(1)
        task_queues.process_task_queues()
        assert iteration.refresh().status == "cancelled"
        assert iteration.set_concurrency(None).concurrency == 1
        task_queues.assertNumTasksEquals(0)
    assert count("parked") == 3


def test_an_error_behind_some_instances_of_a_batch_parks_nothing_half(task_queues, db):
    """The next slice must try the instance that failed."""
    from soc_tasks import defer_iteration_with_finalize
    from tests.specimen import iterating

    tags = Row.objects.bulk_create(Row() for _ in range(12))
    tried = []

    def act(instance):
        Iteration.all()[0].set_concurrency(1)
        tried.append(instance.pk)
        if instance.pk == tags[2].pk and tried.count(instance.pk) == 1:
            raise ValueError("on purpose")

    # Other tests leave what they noted.
    for kept in (iterating.acts, iterating.visits, iterating.ends):
        kept.clear()
    iterating.acts["callback"] = act
    try:
        defer_iteration_with_finalize(Row.objects.all(), iterating.callback, iterating.finalize, _shards=3)
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        assert sorted(pk for pk, *_ in iterating.visits) == [tag.pk for tag in tags]
        assert len(iterating.ends) == 1
    finally:
        for kept in (iterating.acts, iterating.visits, iterating.ends):
            kept.clear()


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "2"])
def test_what_is_no_number_of_shards_is_refused(task_queues, rows, begun, limit):
    site = Site()
    with route(site.view):
        iteration = begun(site)
        with pytest.raises(ValueError, match="whole number from 1, or None"):
            iteration.set_concurrency(limit)
        assert iteration.refresh().concurrency is None
