"""`@iterative_task` in several shards, and what follows when all are done."""

from __future__ import annotations

import functools
import threading
import time
from contextlib import suppress

import pytest
from django.db import connections

from soc_tasks import (
    DoNotRepeatException,
    FatalTaskError,
    Iteration,
    ModelLogic,
    RetryOptions,
    iterative_task,
    register_logic,
    startTask,
    task,
)
from soc_tasks.backends import get_backend
from soc_tasks.logic import stealing
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan, find_problem
from soc_tasks.logic.slices import run_slice
from soc_tasks.meta import SliceMessage, read_meta
from soc_tasks.models import ShardRow
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests.databases import on_every_database
from tests.specimen.models import Entry, Row, Tag
from tests.specimen.rows import make_entries
from tests.views.calls import route

RUN = "0123456789abcdef" * 2

register_logic("rows of numbers", ModelLogic(Row))


@pytest.fixture
def rows(db):
    return Row.objects.bulk_create(Row(hits=i % 3) for i in range(40))


@pytest.fixture
def without_stealing(monkeypatch):
    """Let each shard work on its own range alone, however long the others take."""
    monkeypatch.setattr(stealing, "LEAST_BATCHES", 10**6)


@pytest.fixture
def seen():
    """The primary keys that each shard was given, and the contexts that finalize was called with."""
    return {"shards": {}, "finalized": []}


def make_view(seen, act=lambda entities: None, **options):
    """Return an iterative view in four shards that notes what it gets."""

    def finalize(context, slug=None):
        seen["finalized"].append(dict(context))

    def view(request, entities, context):
        act(entities)
        seen["shards"].setdefault(request.task.shard, []).extend(entity.pk for entity in entities)
        context["edited"] = True

    return iterative_task(options.pop("logic", Row), **{"shards": 4, "batch_size": 3, "finalize": finalize, **options})(
        view
    )


def run(task_queues, view, context=None, behaviour=TaskFailedBehaviour.RAISE_ERROR, **options):
    with route(view):
        handle = startTask(view, context, **options)
        task_queues.process_task_queues(failure_behaviour=behaviour)
    return Iteration.get(handle.iteration)


def flat(seen):
    return sorted(pk for shard in seen["shards"].values() for pk in shard)


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("time_limit", [None, 1e-9])
def test_every_entity_comes_once_and_finalize_follows_once(
    task_queues, rows, seen, atomic, time_limit, without_stealing
):
    view = make_view(seen, atomic=atomic, time_limit=time_limit)
    iteration = run(task_queues, view, {"word": "hello"})
    assert flat(seen) == [row.pk for row in rows]
    assert {shard: len(keys) for shard, keys in seen["shards"].items()} == dict.fromkeys(range(4), 10)
    assert seen["finalized"] == [{"word": "hello"}]
    assert (iteration.status, iteration.done, iteration.total) == ("succeeded", 40, 40)
    assert [(shard.index, shard.status, shard.done) for shard in iteration.shards] == [
        (index, "done", 10) for index in range(4)
    ]
    assert ShardRow.objects.count() == 5


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize("atomic", [False, True])
def test_few_rows_or_none(task_queues, db, seen, number, atomic):
    rows = Row.objects.bulk_create(Row() for _ in range(number))
    iteration = run(task_queues, make_view(seen, atomic=atomic))
    assert flat(seen) == [row.pk for row in rows]
    assert len(seen["finalized"]) == 1
    assert (iteration.status, iteration.done) == ("succeeded", number)
    assert len(iteration.shards) == max(number, 1)


@pytest.mark.parametrize("order", ["title", "count", "price", "token", "day", "alias", "program"])
def test_any_order_with_ties_and_nulls(task_queues, db, seen, order):
    entries = make_entries(60)
    run(task_queues, make_view(seen, logic=Entry, order=order))
    assert flat(seen) == [entry.pk for entry in entries]
    assert len(seen["finalized"]) == 1


def test_a_posted_filter_and_order_count_for_the_ranges(task_queues, db, seen, without_stealing):
    entries = make_entries(60)
    iteration = run(task_queues, make_view(seen, logic=Entry), {"filter": {"flag": True}, "order": "code"})
    wanted = [entry.pk for entry in entries if entry.flag]
    assert flat(seen) == wanted
    assert iteration.total == len(wanted)
    sizes = [shard.done for shard in iteration.shards]
    assert max(sizes) - min(sizes) <= 1


def test_all_shards_are_queued_by_the_start(memory_backend, task_queues, rows, seen):
    from tests.views.test_iterative import deliver_first

    view = make_view(seen)
    with route(view):
        startTask(view)
        deliver_first(memory_backend)
        assert [read_meta(task).slice.shard for task in memory_backend.tasks_now()] == [0, 1, 2, 3]
        # In any order.
        memory_backend.tasks.reverse()
        task_queues.process_task_queues()
    assert flat(seen) == [row.pk for row in rows]
    assert len(seen["finalized"]) == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_every_delivery_twice_and_late(memory_backend, task_queues, rows, seen, atomic):
    """The counter of djangae's marker was counted twice then, and finalize ran early, or twice."""
    from tests.views.test_iterative import deliver_first

    view, delivered = make_view(seen, atomic=atomic, time_limit=1e-9), []
    with route(view):
        startTask(view)
        while tasks := memory_backend.tasks_now():
            memory_backend.tasks[:] = []
            # Each of this round, and all that came before it, before and after each other.
            for one in [*tasks, *delivered[-12:], *tasks]:
                memory_backend.tasks.insert(0, one)
                deliver_first(memory_backend)
            delivered += tasks
    assert flat(seen) == [row.pk for row in rows]
    assert len(seen["finalized"]) == 1
    [iteration] = Iteration.all()
    assert (iteration.status, iteration.done) == ("succeeded", 40)


def test_a_failing_batch_holds_up_its_own_shard_alone(task_queues, rows, seen):
    bad, tried = rows[15].pk, []

    def fail_twice(entities):
        if bad in [entity.pk for entity in entities]:
            tried.append(bad)
            if len(tried) < 3:
                raise ValueError("on purpose")

    iteration = run(task_queues, make_view(seen, fail_twice), behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert flat(seen) == [row.pk for row in rows]
    assert len(seen["finalized"]) == 1
    assert iteration.status == "succeeded"


def test_a_shard_that_fails_for_good_is_resumed_and_finalize_waits_for_it(task_queues, rows, seen):
    broken = [True]

    def fail(entities):
        if broken and rows[15].pk in [entity.pk for entity in entities]:
            raise FatalTaskError("broken")

    view = make_view(seen, fail)
    iteration = run(task_queues, view, behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert iteration.status == "failed"
    assert seen["finalized"] == []
    assert "failed" in [shard.status for shard in iteration.shards]
    broken.clear()
    with route(view):
        iteration.resume()
        task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert flat(seen) == [row.pk for row in rows]
    assert len(seen["finalized"]) == 1


def test_paused_in_the_midst_and_resumed(task_queues, rows, seen):
    def pause(entities):
        if not seen["shards"]:
            Iteration.all()[0].pause()

    view = make_view(seen, pause)
    iteration = run(task_queues, view)
    assert (iteration.status, iteration.done) == ("paused", 3)
    with route(view):
        iteration.resume()
        task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert flat(seen) == [row.pk for row in rows]
    assert len(seen["finalized"]) == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_paused_during_the_last_batch_finalize_follows(task_queues, rows, seen, atomic):
    def pause(entities):
        if len(flat(seen)) + len(entities) == 40:
            Iteration.all()[0].pause()

    iteration = run(task_queues, make_view(seen, pause, atomic=atomic))
    assert iteration.status == "succeeded"
    assert len(seen["finalized"]) == 1


@pytest.mark.parametrize("atomic", [False, True])
def test_cancelled_during_the_last_batch_it_never_does(task_queues, rows, seen, atomic):
    def cancel(entities):
        if len(flat(seen)) + len(entities) == 40:
            Iteration.all()[0].cancel()

    iteration = run(task_queues, make_view(seen, cancel, atomic=atomic, repeat_in=60))
    assert (iteration.status, iteration.done) == ("cancelled", 40)
    assert seen["finalized"] == []
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_finalize_that_fails_is_tried_again_and_what_it_wrote_is_undone_where_atomic(task_queues, rows, seen, atomic):
    tries = []

    def finalize():
        tries.append(Iteration.all()[0].status)
        Tag.objects.create(name="finalized")
        if len(tries) < 3:
            raise ValueError("on purpose")

    iteration = run(
        task_queues,
        make_view(seen, finalize=finalize, atomic=atomic),
        behaviour=TaskFailedBehaviour.RETRY_TASK,
    )
    assert tries == ["running"] * 3
    assert (iteration.status, iteration.done) == ("succeeded", 40)
    assert Tag.objects.count() == (1 if atomic else 3)
    assert len(flat(seen)) == 40


@pytest.mark.parametrize("error", [FatalTaskError, ValueError])
def test_a_finalize_that_fails_for_good_fails_the_iteration_and_resume_runs_it_again(task_queues, rows, seen, error):
    broken, tries = [True], []

    def finalize():
        tries.append(1)
        if broken:
            raise error("broken")

    view = make_view(seen, finalize=finalize)
    with route(view):
        handle = startTask(view, retry_options=RetryOptions(max_attempts=2))
        with suppress(TaskFailedError):
            task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        iteration = Iteration.get(handle.iteration)
        assert (iteration.status, iteration.done) == ("failed", 40)
        assert "broken" in iteration.error
        assert len(get_state().list_dead_letters()) == 1
        broken.clear()
        tries.clear()
        iteration.resume()
        task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert tries == [1]
    assert len(flat(seen)) == 40


def test_finalize_is_paused_and_cancelled_as_a_batch_is(memory_backend, task_queues, rows, seen):
    from tests.views.test_iterative import deliver_first

    view = make_view(seen)
    with route(view):
        handle = startTask(view)
        while not any(getattr(read_meta(one).slice, "shard", 0) == 4 for one in memory_backend.tasks_now()):
            deliver_first(memory_backend)
        iteration = Iteration.get(handle.iteration).pause()
        task_queues.process_task_queues()
        assert seen["finalized"] == []
        iteration.resume()
        iteration.cancel()
        task_queues.process_task_queues()
    assert seen["finalized"] == []
    assert iteration.refresh().status == "cancelled"


def finish(seen):
    @task
    def finish(request):
        seen["finalized"].append(dict(request.task.context))

    return finish


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("number", [0, 40])
def test_finalize_by_url(task_queues, db, seen, by_name, number, settings):
    import types

    from django.urls import path

    Row.objects.bulk_create(Row() for _ in range(number))
    settings.CLOUD_TASKS_QUEUES = [{"name": "slow"}]
    last = finish(seen)
    view = make_view(seen, finalize="last" if by_name else last)
    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("view/", view), path("last/", last, name="last")]
    settings.ROOT_URLCONF = conf
    handle = startTask(view, {"word": "hello", "n": 5}, "slow", headers={"X-Trace": "1"})
    queued = []
    submit = get_backend().submit
    get_backend().submit = lambda tasks, using=None: queued.extend(tasks) or submit(tasks, using)
    task_queues.process_task_queues()
    assert seen["finalized"] == [{"word": "hello", "n": 5}]
    assert Iteration.get(handle.iteration).status == "succeeded"
    [one] = [one for one in queued if one.path == "/last/"]
    assert (one.queue, one.headers["X-Trace"]) == ("slow", "1")


def test_a_finalize_that_leads_nowhere_is_refused_at_the_start(task_queues, rows, seen):
    with pytest.raises(TaskFailedError, match="its finalize 'no_such_name' is none"):
        run(task_queues, make_view(seen, finalize="no_such_name"))
    assert seen["shards"] == {}
    assert Iteration.all() == []


def test_finalize_gets_what_it_takes(task_queues, rows):
    from django.test import override_settings

    got = []
    functions = [
        lambda: got.append("nothing"),
        lambda slug: got.append((slug,)),
        lambda *, context, slug="none": got.append((slug, context)),
        lambda **known: got.append(sorted(known)),
        functools.partial(lambda first, context: got.append((first, context)), 1),
    ]
    from django.urls import path

    for function in functions:

        @iterative_task(Row, finalize=function)
        def view(request, entities, slug):
            return None

        with override_settings(ROOT_URLCONF=(path("view/<slug:slug>/", view),)):
            startTask("/view/gsoc/", {"n": 1})
            task_queues.process_task_queues()
    assert got == ["nothing", ("gsoc",), ("gsoc", {"n": 1}), ["context", "slug"], (1, {"n": 1})]


def test_repeat_in_starts_after_finalize(task_queues, rows, seen):
    view = make_view(seen, repeat_in=60)
    with route(view):
        startTask(view, {"n": 1})
        task_queues.process_task_queues()
        assert len(seen["finalized"]) == 1
        task_queues.assertNumTasksEquals(1)
        task_queues.process_task_queues()
        assert len(seen["finalized"]) == 2
        task_queues.flush_task_queues()

    def stop(context):
        raise DoNotRepeatException

    run(task_queues, make_view(seen, finalize=stop, repeat_in=60))
    task_queues.assertNumTasksEquals(0)


def test_do_not_repeat_in_one_shard_is_for_all(task_queues, rows, seen):
    def stop(entities):
        if entities[0].pk == rows[0].pk:
            raise DoNotRepeatException

    iteration = run(task_queues, make_view(seen, stop, repeat_in=60))
    assert (iteration.status, iteration.done) == ("succeeded", 40)
    task_queues.assertNumTasksEquals(0)


class Numbers:
    """No model."""

    def getBatchOfData(self, start_key=None):
        return [1], None


@pytest.mark.parametrize(
    ("options", "context", "problem"),
    [
        ({"logic": Numbers()}, {}, "only models and querysets"),
        ({"order": "-pk"}, {}, "ascends"),
        ({"logic": ModelLogic(Row, "-hits")}, {}, "ascends"),
        ({}, {"order": "-hits"}, "ascends"),
        ({"start_key": "[1]"}, {}, "start_key"),
        ({}, {"start_key": "[1]"}, "start_key"),
    ],
)
def test_where_there_can_be_one_shard_only(task_queues, rows, seen, options, context, problem):
    with pytest.raises(TaskFailedError, match=problem) as caught:
        run(task_queues, make_view(seen, **options), context)
    assert caught.value.status_code == 200
    assert Iteration.all() == []
    if not context:
        logic = options.pop("logic", Row)
        assert problem in find_problem(Plan(logic=logic, shards=2, **options))
        assert find_problem(Plan(logic=logic, **options)) is None


def test_bad_arguments_are_refused_at_decoration():
    for shards in (0, -1, 1001, True, 1.5, "2", None):
        with pytest.raises(ValueError, match="number of shards"):
            iterative_task(Row, shards=shards)

    async def wait():
        """Nobody can call it."""

    for finalize in (5, "", ["x"]):
        with pytest.raises(TypeError, match="finalize must be"):
            iterative_task(Row, finalize=finalize)
    for finalize in (wait, functools.partial(wait)):
        with pytest.raises(TypeError, match="async"):
            iterative_task(Row, finalize=finalize)


@on_every_database
def test_shards_that_end_at_once_have_one_finalize(engine_database, monkeypatch):
    """Counting other shards' rows would finalize early, twice or never."""
    number, queued = 6, []
    options = {"path": "/x", "script_name": "", "context": "{}", "inherited": {}, "shards": number}
    shards = [ShardRecord(iteration=RUN, index=index) for index in range(number)]
    get_state().create_iteration(IterationRecord(id=RUN, name="run", unfinished=number, options=options), shards)
    monkeypatch.setattr(get_backend(), "submit", lambda tasks, using=None: queued.extend(tasks))
    plan = Plan(logic=Numbers(), finalize=lambda: None)
    met = threading.Barrier(number)

    def work(index):
        def process(entities, context):
            met.wait(20)

        now = time.monotonic()
        budget = Budget(seconds=60, stopping=lambda: False, started=now, deadline=now + 60)
        message = SliceMessage(iteration=RUN, shard=index, step=0, epoch=0)
        try:
            run_slice(message, plan, process, budget, lambda error: False)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [read_meta(one).slice.shard for one in queued] == [number]
    shards = get_state().list_shards(RUN)
    assert [shard.status for shard in shards] == ["done"] * number + ["running"]
    assert get_state().get_iteration(RUN).status == "running"
