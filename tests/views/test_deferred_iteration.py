"""Deferred iterations as they run; among it every fault that djangae's have, which ours must not."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from soc_tasks import (
    FatalTaskError,
    Iteration,
    defer_iteration_with_finalize,
    get_deferred_shard_index,
)
from soc_tasks.logic import calls
from soc_tasks.logic.budgets import Budget
from soc_tasks.meta import read_meta
from soc_tasks.models import PayloadRow, ShardRow
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests.specimen import iterating
from tests.specimen.iterating import callback, finalize, halves, overlapping, two_arguments, write
from tests.specimen.models import Entry, Program, Row, Tag
from tests.specimen.rows import make_entries
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db
RETRY = TaskFailedBehaviour.RETRY_TASK


@pytest.fixture
def rows():
    return Row.objects.bulk_create(Row(hits=i % 3) for i in range(40))


@pytest.fixture
def hurry(monkeypatch):
    """Have the time of every slice be up after each instance."""
    monkeypatch.setattr(Budget, "is_used_up", lambda self: True)


def visited():
    return sorted(visit[0] for visit in iterating.visits)


def keys(rows):
    return [row.pk for row in rows]


def run(task_queues, queryset, function=callback, *args, behaviour=TaskFailedBehaviour.RAISE_ERROR, **options):
    handle = defer_iteration_with_finalize(queryset, function, finalize, *args, **options)
    task_queues.process_task_queues(failure_behaviour=behaviour)
    return Iteration.get(handle.iteration)


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("shards", [1, 4])
def test_every_instance_once_then_finalize(task_queues, rows, atomic, shards):
    program = Program.objects.create(name="p")
    iteration = run(
        task_queues, Row.objects.all(), _atomic=atomic, _shards=shards, _batch_size=3, word="hello", number=[1, program]
    )
    assert visited() == keys(rows)
    assert {visit[1] for visit in iterating.visits} == set(range(shards))
    assert all(visit[2:] == ((), {"word": "hello", "number": [1, program]}) for visit in iterating.visits)
    assert iterating.ends == [(None, (), {"word": "hello", "number": [1, program]})]
    assert (iteration.status, iteration.done, iteration.total) == ("succeeded", 40, 40)
    assert iteration.name == "tests.specimen.iterating.callback"
    assert get_deferred_shard_index() is None


def test_positional_arguments_reach_both_functions(task_queues, rows):
    run(task_queues, Row.objects.all(), two_arguments, "default", 2, True, False, "hello")
    assert visited() == keys(rows)
    assert iterating.visits[0][2] == ("hello",)
    assert iterating.ends == [(None, ("hello",), {})]


def test_functions_without_a_name_of_their_own(task_queues, rows):
    """In djangae a partial was refused, for want of a name."""
    call = functools.partial(callback, word="hello")
    defer_iteration_with_finalize(Row.objects.all(), call, functools.partial(finalize, "end"))
    task_queues.process_task_queues()
    assert visited() == keys(rows)
    assert iterating.visits[0][3] == {"word": "hello"}
    assert iterating.ends == [(None, ("end",), {})]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("atomic", [False, True])
def test_an_empty_table_is_finalized(task_queues, number, atomic):
    """In djangae nothing was, with some getters."""
    rows = Row.objects.bulk_create(Row() for _ in range(number))
    iteration = run(task_queues, Row.objects.all(), _atomic=atomic)
    assert visited() == keys(rows)
    assert len(iterating.ends) == 1
    assert (iteration.status, iteration.done, iteration.total) == ("succeeded", number, number)


@pytest.mark.parametrize("queryset", [Row.objects.none, lambda: Row.objects.filter(pk__in=[])])
def test_what_can_match_nothing_is_finalized(task_queues, rows, queryset):
    run(task_queues, queryset())
    assert visited() == []
    assert len(iterating.ends) == 1


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("atomic", [True, False])
def test_the_shards_are_dropped_or_kept_as_a_log(task_queues, rows, delete, atomic):
    iteration = run(task_queues, Row.objects.all(), _delete_marker=delete, _shards=4, _atomic=atomic)
    assert (iteration.done, iteration.total, iteration.status) == (40, 40, "succeeded")
    assert iteration.rate > 0
    assert [shard.done for shard in iteration.shards] == ([] if delete else [10] * 4)
    assert ShardRow.objects.count() == (0 if delete else 5)
    [listed] = Iteration.all()
    assert listed.done == 40


@pytest.mark.django_db(databases=["default", "other"])
def test_what_it_needs_is_kept_while_it_lives_and_no_longer(task_queues, rows):
    iterating.acts["callback"] = lambda instance: len(iterating.visits) == 5 and Iteration.all()[0].pause()
    iteration = run(task_queues, Row.objects.all(), _batch_size=2)
    assert iteration.status == "paused"
    PayloadRow.objects.update(until=datetime(2020, 1, 1, tzinfo=UTC))
    get_state().sweep()
    iterating.acts.clear()
    iteration.resume()
    task_queues.process_task_queues()
    assert visited() == keys(rows)
    assert bytes(PayloadRow.objects.get().data) == b""


def test_cancelled_it_needs_nothing_and_is_never_finalized(task_queues, rows):
    iterating.acts["callback"] = lambda instance: len(iterating.visits) == 5 and Iteration.all()[0].cancel()
    iteration = run(task_queues, Row.objects.all(), _batch_size=2)
    assert iteration.status == "cancelled"
    assert 0 < len(iterating.visits) < 40
    assert iterating.ends == []
    assert bytes(PayloadRow.objects.get().data) == b""


@pytest.mark.parametrize("atomic", [True, False])
def test_nothing_is_counted_twice_however_often_it_is_delivered(memory_backend, rows, atomic, monkeypatch):
    """Djangae's counter of done shards went up with each delivery, and finalize came early, or twice."""
    monkeypatch.setattr(Budget, "is_used_up", lambda self: True)
    defer_iteration_with_finalize(
        Row.objects.all(), callback, finalize, _shards=4, _batch_size=4, _atomic=atomic, _delete_marker=False
    )
    delivered = []
    while tasks := memory_backend.tasks_now():
        memory_backend.tasks[:] = []
        for one in [*tasks, *delivered[-12:], *tasks]:
            memory_backend.tasks.insert(0, one)
            deliver_first(memory_backend)
        delivered += tasks
    for one in delivered[-20:]:
        memory_backend.tasks.insert(0, one)
        deliver_first(memory_backend)
    assert visited() == keys(rows)
    assert len(iterating.ends) == 1
    assert [shard.done for shard in Iteration.all()[0].shards] == [10] * 4


def test_what_hands_over_goes_on_behind_the_last_instance(task_queues, rows, hurry, memory_backend):
    """Djangae began again with the last one: its callback was called twice."""
    run(task_queues, Row.objects.all(), _shards=2, _batch_size=7)
    assert [visit[0] for visit in iterating.visits if visit[1] == 0] == keys(rows[:20])
    assert visited() == keys(rows)
    assert len(iterating.ends) == 1


@pytest.mark.parametrize("shards", [1, 3])
def test_rows_whose_filtered_column_the_callback_changes_are_all_visited(task_queues, rows, hurry, shards):
    """By OFFSET, or a list that is made anew, every other batch is left out."""

    def change(instance):
        Row.objects.filter(pk=instance.pk).update(hits=99)

    iterating.acts["callback"] = change
    wanted = [row.pk for row in rows if row.hits == 1]
    iteration = run(task_queues, Row.objects.filter(hits=1), _shards=shards, _batch_size=2)
    assert visited() == wanted
    assert (iteration.done, iteration.total) == (len(wanted), len(wanted))


@pytest.mark.parametrize("field", ["count", "title", "size", "moment", "alias", "flag", "program"])
def test_an_order_that_is_not_unique_neither_repeats_nor_sticks(task_queues, hurry, field):
    """Djangae went on with `field >= value`: the same rows again, for ever if there were many."""
    entries = make_entries(45)
    run(task_queues, Entry.objects.all(), order_field=field, _shards=4, _batch_size=4)
    assert visited() == keys(entries)
    assert len(iterating.ends) == 1


def test_one_value_for_all(task_queues, hurry):
    rows = Row.objects.bulk_create(Row(hits=5) for _ in range(30))
    run(task_queues, Row.objects.all(), order_field="hits", _batch_size=3)
    assert visited() == keys(rows)


@pytest.mark.parametrize("place", [0, 1, 15, 16, 39])
def test_an_exception_goes_on_from_its_instance(task_queues, rows, place):
    tries = []

    def fail(instance):
        if instance.pk == rows[place].pk:
            tries.append(instance.pk)
            if len(tries) < 4:
                raise ValueError("on purpose")

    iterating.acts["callback"] = fail
    iteration = run(task_queues, Row.objects.all(), behaviour=RETRY, _shards=2, _batch_size=10)
    assert visited() == keys(rows)
    assert len(tries) == 4
    assert (iteration.status, iteration.done) == ("succeeded", 40)
    assert len(iterating.ends) == 1


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize("error", [ValueError, FatalTaskError])
def test_one_that_always_fails_ends_and_is_resumed_from_there(task_queues, rows, settings, place, error):
    """Djangae deferred a new shard for each failure, and never came to an end."""
    settings.CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": 3}]
    tries, broken = [], [True]

    def fail(instance):
        if broken and instance.pk == rows[place].pk:
            tries.append(instance.pk)
            raise error("on purpose")

    iterating.acts["callback"] = fail
    handle = defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _shards=2, _batch_size=10)
    while task_queues.get_task_count():
        with suppress(TaskFailedError):
            task_queues.process_task_queues(failure_behaviour=RETRY)
    iteration = Iteration.get(handle.iteration)
    assert iteration.status == "failed"
    # Once behind others, and then as a task of its own, as often as its queue allows.
    assert len(tries) == (1 if error is FatalTaskError else 3 + bool(place))
    assert len(get_state().list_dead_letters()) == 1
    assert iterating.ends == []
    broken.clear()
    iteration.resume()
    task_queues.process_task_queues()
    assert iteration.refresh().status == "succeeded"
    assert visited() == keys(rows)
    assert len(iterating.ends) == 1
    assert get_state().list_dead_letters() == []


def test_atomic_batches_repeat_whole_and_their_effects_do_not(task_queues, rows):
    tries = []

    def fail(instance):
        if instance.pk == rows[15].pk:
            tries.append(1)
            if len(tries) < 3:
                raise ValueError("on purpose")

    iterating.acts["callback"] = fail
    run(task_queues, Row.objects.all(), write, behaviour=RETRY, _shards=2, _batch_size=10, _atomic=True)
    assert sorted(int(tag.name) for tag in Tag.objects.all()) == keys(rows)
    assert len(iterating.visits) == 40 + 2 * 5


def test_a_finalize_that_fails_is_tried_again(task_queues, rows):
    tries = []

    def fail():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("on purpose")

    iterating.acts["finalize"] = fail
    iteration = run(task_queues, Row.objects.all(), behaviour=RETRY)
    assert (len(tries), len(iterating.ends), len(iterating.visits)) == (3, 1, 40)
    assert iteration.status == "succeeded"


def test_querysets_keep_what_comes_with_their_instances(task_queues):
    make_entries(20)
    seen = []

    def look(instance):
        seen.append((instance.get_deferred_fields(), "program" in instance._state.fields_cache))

    iterating.acts["callback"] = look
    queryset = Entry.objects.filter(program__name="Music").select_related("program").only("title", "program__name")
    run(task_queues, queryset, _shards=2)
    assert visited() == keys(queryset.order_by("pk"))
    assert all(related and "remark" in deferred for deferred, related in seen)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Entry.objects.filter(count__gte=0).exclude(title="a"),
        lambda: Entry.objects.filter(title__contains="b"),
        lambda: Entry.objects.filter(tags__name__in=["x", "y"]),
        lambda: Entry.objects.filter(tags__name__in=["x", "y"]).distinct(),
        lambda: Entry.objects.filter(program__name="Music", code__endswith="%s") | Entry.objects.filter(flag=True),
        lambda: Entry.objects.filter(pk__in=Entry.objects.filter(flag=True).values("pk")),
    ],
)
def test_querysets_of_many_kinds(task_queues, hurry, monkeypatch, make, few):
    monkeypatch.setattr("soc_tasks.views.deferred_iterations.FEW_ROWS", few)
    entries = make_entries(40)
    tags = [Tag.objects.create(name=name) for name in ("x", "y", "z")]
    for entry in entries[::2]:
        entry.tags.add(*tags)
    run(task_queues, make(), _batch_size=3, _shards=3)
    assert visited() == sorted(set(make().order_by().values_list("pk", flat=True)))
    assert len(iterating.ends) == 1


def test_a_getter_of_ones_own(task_queues, rows):
    run(task_queues, Row.objects.all(), callback, halves)
    assert {visit[1] for visit in iterating.visits} == {0, 1}
    assert visited() == keys(rows)


def test_a_getter_whose_ranges_overlap_is_refused_with_them(task_queues, rows):
    with pytest.raises(TaskFailedError, match=r"\(None, 7\), \(5, None\).*overlap"):
        run(task_queues, Row.objects.all(), callback, functools.partial(overlapping, by=2))
    assert iterating.visits == []
    assert len(get_state().list_dead_letters()) == 1


def test_slices_inherit_the_queue(task_queues, rows, memory_backend, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "slow"}]
    defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _queue="slow", _shards=3)
    deliver_first(memory_backend)
    assert [(one.queue, read_meta(one).slice.shard) for one in memory_backend.tasks_now()] == [
        ("slow", shard) for shard in range(3)
    ]


def test_what_was_changed_on_its_way_is_never_called(task_queues, rows, memory_backend):
    defer_iteration_with_finalize(Row.objects.all(), callback, finalize)
    row = PayloadRow.objects.get()
    text = zlib.decompress(bytes(row.data)).decode()
    row.data = zlib.compress(text.replace("iterating:finalize", "iterating:callback").encode())
    row.save()
    with pytest.raises(TaskFailedError, match="signature"):
        task_queues.process_task_queues()
    assert Iteration.all() == []


def test_a_call_is_no_iteration(task_queues, rows):
    defer_iteration_with_finalize(Row.objects.all(), callback, finalize)
    row = PayloadRow.objects.get()
    call = calls.write_call(calls.Call(function=callback, args=(1,), kwargs={}))
    [task] = _tasks(task_queues)
    body = task.body.decode().replace(calls.sign(zlib.decompress(bytes(row.data)).decode()), calls.sign(call.text))
    row.data = zlib.compress(call.text.encode())
    row.save()
    _tasks(task_queues)[:] = [dataclasses.replace(task, body=body.encode())]
    with pytest.raises(TaskFailedError, match="deferred iteration"):
        task_queues.process_task_queues()
    assert iterating.visits == []


def _tasks(task_queues):
    from soc_tasks.backends import get_backend

    get_backend().collect()
    return get_backend().tasks


def test_a_function_that_is_not_here_is_waited_for(task_queues, rows, memory_backend, monkeypatch):
    defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _shards=1)
    deliver_first(memory_backend)
    monkeypatch.delattr(iterating, "callback")
    [one] = memory_backend.tasks_now()
    with pytest.raises(TaskFailedError) as caught:
        task_queues.process_task_queues()
    assert caught.value.status_code == 500
    monkeypatch.undo()
    memory_backend.tasks.append(one)
    task_queues.process_task_queues()
    assert visited() == keys(rows)


def test_an_unfinished_slice_of_an_iteration_that_is_gone_is_dropped(task_queues, rows, memory_backend):
    from soc_tasks.models import IterationRow

    defer_iteration_with_finalize(Row.objects.all(), callback, finalize, _shards=2)
    deliver_first(memory_backend)
    IterationRow.objects.all().delete()
    task_queues.process_task_queues()
    assert iterating.visits == []
