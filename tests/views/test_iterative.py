"""`@iterative_task`: every entity once, whatever is delivered how often."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from django.http import HttpResponse

from soc_tasks import (
    DoNotRepeatException,
    FatalTaskError,
    Iteration,
    ModelLogic,
    iterative_task,
    register_logic,
    startTask,
)
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests import site
from tests.specimen.models import Entry, Tag

pytestmark = pytest.mark.django_db

register_logic("soc.logic.models.entry", ModelLogic(Entry, batch_size=10))


@pytest.fixture
def entries():
    return Entry.objects.bulk_create(
        Entry(
            code=f"e{i:03}",
            title=f"Entry {i % 4}",
            count=i % 3,
            day=date(2026, 1, 1),
            slot=time(1),
            span=timedelta(1),
            flag=bool(i % 2),
        )
        for i in range(35)
    )


@pytest.fixture
def seen():
    """The ids of the entities that the view was given, in order."""
    ids = []

    def note(request, entities, **_):
        ids.extend(entity.pk for entity in entities)

    site.behaviours["iterate"] = note
    return ids


def test_every_entity_comes_once_in_batches(task_queues, entries, seen, site_calls):
    handle = startTask("iterate")
    task_queues.process_task_queues()
    assert seen == [entry.pk for entry in entries]
    assert [len(kwargs["entities"]) for _, _, kwargs in site_calls] == [10, 10, 10, 5]
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done, iteration.total, iteration.failed) == ("succeeded", 35, 35, 0)
    assert iteration.finished is not None
    assert iteration.rate > 0
    assert iteration.time_left == timedelta(0)
    assert [shard.status for shard in iteration.shards] == ["done"]


def test_a_slice_whose_time_is_up_hands_over_to_the_next(task_queues, entries, seen, site_calls):
    startTask("iterate_slowly")
    task_queues.process_task_queues()
    assert seen == [entry.pk for entry in entries]
    assert [request.task.step for _, request, _ in site_calls] == [0, 1, 2, 3]


def test_the_early_form_takes_logic_filter_order_and_start_key_from_the_context(task_queues, entries, seen):
    logic = ModelLogic(Entry)
    _, start_key = logic.getBatchOfData({"flag": True}, None, 3, order="-code")
    startTask(
        "early",
        {
            "logic": "soc.logic.models.entry",
            "filter": '{"flag": true}',
            "order": "-code",
            "start_key": start_key,
        },
    )
    task_queues.process_task_queues()
    wanted = [entry.pk for entry in reversed(entries) if entry.flag]
    assert seen == wanted[3:]


def test_the_context_may_give_values_in_place_of_json(task_queues, entries, seen):
    startTask("iterate", {"fields": {"count__in": [1, 2]}})
    task_queues.process_task_queues()
    assert seen == [entry.pk for entry in entries if entry.count in (1, 2)]


def test_a_posted_filter_is_added_to_the_decorators_and_leaks_into_no_other_task(task_queues, entries, seen):
    @iterative_task(Entry, filter={"count": 1})
    def view(request, entities):
        seen.extend(entity.pk for entity in entities)

    with urls(view):
        startTask(view, {"filter": {"count__gte": 0, "flag": True}})
        startTask(view)
        task_queues.process_task_queues()
    both = [entry.pk for entry in entries if entry.count == 1 and entry.flag]
    ours = [entry.pk for entry in entries if entry.count == 1]
    assert seen == both + ours


@pytest.mark.parametrize(
    "context",
    [
        {"filter": "{"},
        {"filter": {"program__name": "x"}},
        {"filter": {"_connector": "OR"}},
        {"filter": {"title__regex": "x"}},
        {"filter": [1]},
        {"filter": {"count": "many"}},
        {"filter": {}, "fields": {"count": 1}, "order": "no_such_field"},
        {"order": "program__name"},
        {"order": ["a", "b"]},
        {"start_key": "garbage"},
        {"start_key": "[1180591620717411303424]"},
        {"start_key": 5},
        {"filter": {"count": 1}, "fields": {"count": 2}},
    ],
)
def test_a_context_that_can_never_work_is_a_dead_letter(task_queues, entries, site_calls, context):
    handle = startTask("iterate", context)
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert isinstance(caught.value.original_exception, FatalTaskError)
    assert caught.value.status_code == 200
    assert len(get_state().list_dead_letters()) == 1
    assert site_calls == []
    with pytest.raises(Iteration.DoesNotExist):
        Iteration.get(handle.iteration)


def test_an_unknown_logic_is_a_dead_letter_and_is_never_imported(task_queues, entries):
    import sys

    for name in ("antigravity", "os.system", "", "soc.logic.models.nobody"):
        startTask("early", {"logic": name})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert len(get_state().list_dead_letters()) == 4
    assert "antigravity" not in sys.modules


def test_edits_of_the_context_commit_with_the_cursor_and_are_dropped_with_a_failed_batch(task_queues, entries):
    fails = [True]
    counts = []

    def count(request, entities, context):
        counts.append(context["n"])
        assert request.task.context["n"] == context["n"]
        assert request.POST["n"] == str(context["n"])
        context["n"] += 1
        if len(counts) == 3 and fails.pop():
            raise ValueError("once")

    site.behaviours["iterate"] = count
    startTask("iterate", {"n": 0})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert counts == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("url", ["iterate", "iterate_atomic"])
def test_a_failed_batch_comes_again_and_the_others_do_not(task_queues, entries, url):
    tried = []

    def fail_once(request, entities, **_):
        first = entities[0].pk
        tried.append(first)
        Tag.objects.create(name=str(first))
        if first == entries[20].pk and tried.count(first) == 1:
            raise ValueError("once")

    site.behaviours["iterate"] = fail_once
    handle = startTask(url)
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    assert tried == [entries[i].pk for i in (0, 10, 20, 20, 30)]
    assert Iteration.get(handle.iteration).status == "succeeded"
    assert Iteration.get(handle.iteration).done == 35
    names = [tag.name for tag in Tag.objects.order_by("id")]
    # Atomic: what the failed batch wrote is gone with it.
    assert names.count(str(entries[20].pk)) == (1 if url == "iterate_atomic" else 2)


@pytest.mark.parametrize("url", ["iterate", "iterate_atomic"])
def test_a_context_that_cannot_travel_is_not_tried_again(task_queues, entries, site_calls, url):
    def spoil(request, context, **_):
        context["entry"] = entries[0]

    site.behaviours["iterate"] = spoil
    handle = startTask(url)
    with pytest.raises(TaskFailedError, match=r"context\['entry'\]"):
        task_queues.process_task_queues()
    assert Iteration.get(handle.iteration).status == "failed"
    assert len(site_calls) == 1


@pytest.mark.parametrize("answer", [HttpResponse(status=500), HttpResponse(status=404)])
def test_a_batch_that_is_answered_with_no_2xx_has_failed(task_queues, entries, answer):
    site.behaviours["iterate"] = lambda request, **_: answer
    handle = startTask("iterate")
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues()
    assert Iteration.get(handle.iteration).done == 0


@pytest.mark.parametrize("url", ["iterate", "iterate_atomic"])
def test_a_fatal_error_fails_the_iteration_and_resume_goes_on_from_there(task_queues, entries, url):
    done = []
    broken = [True]

    def behaviour(request, entities, **_):
        if broken and entities[0].pk == entries[10].pk:
            raise FatalTaskError("broken")
        done.extend(entity.pk for entity in entities)

    site.behaviours["iterate"] = behaviour
    handle = startTask(url)
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done) == ("failed", 10)
    assert "broken" in iteration.error
    [letter] = get_state().list_dead_letters()
    assert "broken" in letter.error

    broken.clear()
    iteration.resume()
    assert iteration.status == "running"
    assert get_state().list_dead_letters() == []
    task_queues.process_task_queues()
    assert done == [entry.pk for entry in entries]
    assert iteration.refresh().status == "succeeded"


def test_failures_without_progress_end_in_a_dead_letter_at_the_last_attempt(task_queues, entries, site_calls):
    from soc_tasks import RetryOptions

    def fail(request, **_):
        raise ValueError("always")

    site.behaviours["iterate"] = fail
    handle = startTask("iterate", retry_options=RetryOptions(max_attempts=3))
    with pytest.raises(TaskFailedError):
        task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert len(site_calls) == 3
    assert Iteration.get(handle.iteration).status == "failed"
    assert len(get_state().list_dead_letters()) == 1


@pytest.mark.parametrize("url", ["iterate", "iterate_atomic"])
def test_pause_takes_effect_between_batches_and_resume_goes_on(task_queues, entries, url):
    done = []

    def pause_in_the_second(request, entities, **_):
        done.extend(entity.pk for entity in entities)
        if len(done) == 20:
            Iteration.get(request.task.iteration).pause()

    site.behaviours["iterate"] = pause_in_the_second
    handle = startTask(url)
    task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done) == ("paused", 20)
    task_queues.assertNumTasksEquals(0)

    iteration.resume()
    task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert done == [entry.pk for entry in entries]


def test_cancel_is_for_good(task_queues, entries, site_calls):
    site.behaviours["iterate"] = lambda request, **_: Iteration.get(request.task.iteration).cancel() and None
    handle = startTask("iterate_again")
    task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.done, len(site_calls)) == ("cancelled", 10, 1)
    assert iteration.finished is not None
    assert iteration.resume().status == "cancelled"
    task_queues.assertNumTasksEquals(0)


def test_pausing_what_waits_for_its_delivery(task_queues, entries, seen, memory_backend):
    handle = startTask("iterate")
    deliver_only_the_start(memory_backend)
    iteration = Iteration.get(handle.iteration).pause()
    task_queues.process_task_queues()
    assert seen == []
    iteration.resume()
    iteration.resume()
    task_queues.process_task_queues()
    assert len(seen) == 35


@pytest.mark.parametrize("url", ["iterate", "iterate_atomic", "iterate_slowly"])
def test_duplicates_of_every_delivery_do_nothing_more(task_queues, entries, seen, memory_backend, url):
    startTask(url)
    delivered = []
    while tasks := memory_backend.tasks_now():
        delivered.append(tasks[0])
        memory_backend.tasks[:] = [tasks[0], tasks[0], *delivered, *tasks[1:]]
        # One round delivers everything so far again, the current one twice.
        known = len(memory_backend.tasks)
        rounds = memory_backend.tasks[:known]
        memory_backend.tasks[:] = []
        for task in rounds:
            memory_backend.tasks.insert(0, task)
            deliver_first(memory_backend)
        if len(delivered) > 60:
            pytest.fail("it does not end")
    assert seen == [entry.pk for entry in entries]
    assert len(Iteration.all()) == 1


def test_a_step_that_comes_early_is_retried_not_dropped(task_queues, entries, seen, memory_backend):
    import dataclasses

    from soc_tasks.meta import Meta, read_meta
    from soc_tasks.values import META_HEADER

    startTask("iterate")
    deliver_first(memory_backend)
    [task] = memory_backend.tasks_now()
    meta = read_meta(task)
    early = Meta(start_id=meta.start_id, slice=dataclasses.replace(meta.slice, step=5))
    memory_backend.tasks[:] = [dataclasses.replace(task, headers={**task.headers, META_HEADER: early.to_header()})]
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.status_code == 500
    assert seen == []


def test_repeat_in_starts_again_from_the_original_context(task_queues, entries, site_calls):
    def edit(request, context, **_):
        context["n"] = "edited"

    site.behaviours["iterate"] = edit
    startTask("iterate_again", {"n": "original"}, name="nightly")
    task_queues.process_task_queues()
    assert len(site_calls) == 4
    task_queues.assertNumTasksEquals(1)
    task_queues.process_task_queues()
    assert len(site_calls) == 8
    task_queues.assertNumTasksEquals(1)
    first = [request for _, request, _ in site_calls][4]
    assert first.task.iteration != site_calls[0][1].task.iteration
    assert len({iteration.id for iteration in Iteration.all()}) == 2


def test_repeat_in_waits_its_seconds(task_queues, entries, memory_backend):
    startTask("iterate_again")
    task_queues.process_task_queues()
    [task] = memory_backend.tasks_now()
    assert (task.eta - task.created).total_seconds() == 60


def test_do_not_repeat_ends_repeat_in_but_not_the_remaining_batches(task_queues, entries, site_calls):
    def stop(request, entities, **_):
        if entities[0].pk == entries[10].pk:
            raise DoNotRepeatException

    site.behaviours["iterate"] = stop
    handle = startTask("iterate_again")
    task_queues.process_task_queues()
    assert Iteration.get(handle.iteration).done == 35
    task_queues.assertNumTasksEquals(0)


def test_edits_of_the_context_do_not_change_what_is_iterated_over(task_queues, entries, seen):
    def forget_the_filter(request, entities, context):
        seen.extend(entity.pk for entity in entities)
        context.clear()

    site.behaviours["iterate"] = forget_the_filter
    startTask("iterate_slowly", {"filter": {"flag": True}})
    task_queues.process_task_queues()
    assert seen == [entry.pk for entry in entries if entry.flag]


def test_a_lease_that_is_longer_than_leases_are_is_of_a_clock_set_back(task_queues, entries, seen, memory_backend):
    from soc_tasks.models import ShardRow

    startTask("iterate")
    deliver_only_the_start(memory_backend)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    ShardRow.objects.update(owner="dead", until=ahead)
    task_queues.process_task_queues()
    assert len(seen) == 35


def test_a_live_lease_keeps_others_out(task_queues, entries, seen, memory_backend):
    from soc_tasks.models import ShardRow

    startTask("iterate")
    deliver_only_the_start(memory_backend)
    ShardRow.objects.update(owner="alive", until=datetime.now(UTC) + timedelta(seconds=20))
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.status_code == 500
    assert seen == []


def test_an_empty_set_succeeds_without_a_call(task_queues, site_calls):
    handle = startTask("iterate")
    task_queues.process_task_queues()
    assert site_calls == []
    assert Iteration.get(handle.iteration).status == "succeeded"


def test_slices_inherit_queue_and_options(task_queues, entries, memory_backend, settings):
    from soc_tasks import RetryOptions

    settings.CLOUD_TASKS_QUEUES = [{"name": "slow"}]
    retry = RetryOptions(max_attempts=7)
    startTask("iterate", queue="slow", headers={"X-Trace": "1"}, retry_options=retry, dispatch_deadline=99)
    deliver_first(memory_backend)
    [task] = memory_backend.tasks_now()
    assert (task.queue, task.headers["X-Trace"], task.retry, task.dispatch_deadline) == ("slow", "1", retry, 99)


def test_entities_come_once_when_rows_are_deleted_on_the_way(task_queues, entries):
    seen = []

    def delete_ahead(request, entities, **_):
        seen.extend(entity.pk for entity in entities)
        Entry.objects.filter(pk__in=[entities[-1].pk, entities[-1].pk + 1]).delete()

    site.behaviours["iterate"] = delete_ahead
    startTask("iterate_slowly")
    task_queues.process_task_queues()
    assert len(seen) == len(set(seen)) == 35 - 3


def test_bound_methods_iterate(task_queues, entries, seen, site_calls):
    startTask("iterating", url_kwargs={"slug": "x"})
    task_queues.process_task_queues()
    assert len(seen) == 35
    assert site_calls[0][2]["slug"] == "x"


class OldLogic:
    """A logic as Melange had them: a number as the key, no order, no end."""

    def getBatchOfData(self, start_key=None):
        first = int(start_key or 0)
        return list(range(first, first + 4)), (str(first + 4) if first < 8 else None)


def test_any_object_with_get_batch_of_data_is_a_logic(task_queues):
    seen = []

    @iterative_task(OldLogic())
    def view(request, entities):
        seen.extend(entities)

    with urls(view):
        handle = startTask(view)
        task_queues.process_task_queues()
    assert seen == list(range(12))
    assert Iteration.get(handle.iteration).total is None


def test_a_logic_that_never_ends_is_stopped(task_queues):
    class Stuck:
        def getBatchOfData(self, start_key=None):
            return [1], "same"

    @iterative_task(Stuck())
    def view(request, entities):
        return None

    with urls(view):
        startTask(view)
        with pytest.raises(TaskFailedError, match="never end"):
            task_queues.process_task_queues()


def test_a_run_that_begins_in_the_middle_knows_no_total(task_queues, entries, seen):
    _, start_key = ModelLogic(Entry).getBatchOfData(None, None, 10, order="pk")
    handle = startTask("iterate", {"start_key": start_key})
    task_queues.process_task_queues()
    iteration = Iteration.get(handle.iteration)
    assert (iteration.done, iteration.total, len(seen)) == (25, None, 25)


def test_bad_arguments_are_refused_at_decoration():
    for logic in (5, ["a"], {"a": 1}):
        with pytest.raises(TypeError, match="logic must be"):
            iterative_task(logic)
    with pytest.raises(TypeError, match="entities"):
        iterative_task(Entry)(lambda request: None)
    with pytest.raises(ValueError, match="batch_size"):
        iterative_task(Entry, batch_size=1001)
    with pytest.raises(ValueError, match="repeat_in"):
        iterative_task(Entry, -1)
    with pytest.raises(ValueError, match="repeat_in"):
        iterative_task(Entry, 31 * 86400)
    with pytest.raises(TypeError, match="filter and fields"):
        iterative_task(Entry, filter={}, fields={})


def deliver_first(backend):
    """Deliver the first task once, whatever comes of it."""
    from soc_tasks.logic.held_back import connections_kept
    from soc_tasks.testing.deliveries import make_dispatcher
    from soc_tasks.values import Delivery

    backend.collect()
    task = backend.tasks.pop(0)
    with connections_kept():
        make_dispatcher()(task, Delivery(queue=task.queue, name=task.name))
    backend.collect()


def deliver_only_the_start(backend):
    deliver_first(backend)


def urls(view):
    """Route `view` alone, for the block."""
    import types

    from django.test import override_settings
    from django.urls import path

    conf = types.ModuleType("made_urls")
    conf.urlpatterns = [path("view/", view)]
    return override_settings(ROOT_URLCONF=conf)
