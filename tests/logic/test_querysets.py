"""Querysets as arguments of deferred functions."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import Count, F, Prefetch, Q

from soc_tasks import PayloadError, TaskTooLargeError, defer, defer_iteration_with_finalize
from soc_tasks.backends import get_backend
from soc_tasks.models import PayloadRow
from tests.specimen import functions
from tests.specimen.models import Comment, Entry, Program, Row
from tests.specimen.rows import make_entries

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture
def entries(db):
    make_entries(30)


def travel(task_queues, queryset):
    """Return a queryset as the function gets it."""
    functions.calls.clear()
    defer(functions.note, queryset)
    task_queues.process_task_queues()
    [((arrived,), _)] = functions.calls
    return arrived


@pytest.mark.parametrize(
    "make",
    [
        Entry.objects.all,
        lambda: Entry.objects.filter(count__gte=2).exclude(title="b"),
        lambda: Entry.objects.filter(Q(program__name="a") | Q(rating__gt=1.5), day__isnull=False),
        lambda: Entry.objects.filter(facts__n=1, token__isnull=False),
        lambda: Entry.objects.filter(pk__in=Comment.objects.values("entry")),
        lambda: Entry.objects.filter(title__contains="100%"),
        lambda: Entry.objects.filter(count=F("size")),
        lambda: Entry.objects.order_by("count", "-pk"),
        lambda: Entry.objects.order_by("count", "pk").reverse(),
        lambda: Entry.objects.order_by().order_by("pk"),
        Entry.objects.none,
        lambda: Entry.objects.filter(pk__in=[]),
        lambda: Entry.objects.filter(tags__name="x").distinct(),
        lambda: Entry.objects.counted(2),
        lambda: Entry.objects.using("default").select_related("program").only("title", "program__name"),
        lambda: Entry.objects.defer("blob", "facts").prefetch_related("tags", "comments"),
    ],
)
def test_the_same_rows_in_the_same_order(task_queues, entries, make):
    arrived = travel(task_queues, make())
    expected = list(make())
    if make().query.order_by:
        assert list(arrived) == expected
    # By the model's own ordering, which has ties.
    assert [row.title for row in arrived] == [row.title for row in expected]
    by_key = {row.pk: row for row in arrived}
    assert by_key.keys() == {row.pk for row in expected}
    for other in expected:
        own = by_key[other.pk]
        assert own.get_deferred_fields() == other.get_deferred_fields()
        assert own._state.fields_cache.keys() == other._state.fields_cache.keys()
        assert (
            getattr(own, "_prefetched_objects_cache", {}).keys()
            == getattr(other, "_prefetched_objects_cache", {}).keys()
        )


def test_it_means_the_rows_that_are_there_when_it_is_looked_at(task_queues, entries):
    queryset = Program.objects.filter(name="late")
    functions.calls.clear()
    defer(functions.note, queryset)
    late = Program.objects.create(name="late")
    task_queues.process_task_queues()
    [((arrived,), _)] = functions.calls
    assert list(arrived) == [late]


def test_it_can_be_filtered_further_and_has_the_models_methods(task_queues, entries):
    arrived = travel(task_queues, Entry.objects.filter(count__gte=1))
    assert list(arrived.counted(2)) == list(Entry.objects.filter(count__gte=1).counted(2))
    assert arrived.filter(title="a").count() == Entry.objects.filter(count__gte=1, title="a").count()


def test_it_is_of_its_database(task_queues):
    Row.objects.using("other").create()
    arrived = travel(task_queues, Row.objects.using("other"))
    assert arrived.db == "other"
    assert arrived.count() == 1


def test_it_is_not_evaluated_when_it_is_deferred(task_queues, entries, django_assert_num_queries):
    queryset = Entry.objects.filter(count=1)
    defer(functions.note, queryset)
    assert queryset._result_cache is None


def test_it_never_stands_in_a_message(task_queues):
    with pytest.raises(TaskTooLargeError, match="_small_task"):
        defer(functions.note, [{"rows": Row.objects.all()}], _small_task=True)
    defer(functions.note, [{"rows": Row.objects.all()}])
    backend = get_backend()
    backend.collect()
    [task] = backend.tasks
    assert b"SELECT" not in task.body.upper()
    assert PayloadRow.objects.get().data


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Row.objects.all()[:5], "sliced"),
        (lambda: Row.objects.all().union(Row.objects.all()), "combined"),
        (lambda: Row.objects.values("pk"), "of values"),
        (lambda: Row.objects.values_list("pk", flat=True), "of values"),
        (lambda: Entry.objects.annotate(n=Count("tags")), "annotations"),
        (lambda: Row.objects.order_by(F("hits").desc()), "ordered by expressions"),
        (lambda: Entry.objects.prefetch_related(Prefetch("tags")), "Prefetch"),
        (Row.objects.select_for_update, "locks rows"),
        (lambda: Row.objects.extra(where=["1=1"], select={"n": "1"}), r"extra\(\)"),
    ],
)
def test_what_has_no_such_form_is_refused(task_queues, make, what):
    with pytest.raises(PayloadError, match=rf"kwargs\['rows'\].*{what}.*primary keys"):
        defer(functions.note, rows=make())
    assert task_queues.get_task_count() == 0


@pytest.mark.parametrize("make", [lambda: Row.objects.all()[:5], lambda: Row.objects.all().union(Row.objects.all())])
def test_what_to_iterate_over_in_place_of_a_part_is_said(task_queues, make):
    with pytest.raises(PayloadError, match=r"Q\(\.\.\.\) \| Q\(\.\.\.\).*filter\(pk__in=list\("):
        defer_iteration_with_finalize(make(), functions.note, functions.note)
    assert task_queues.get_task_count() == 0


def test_a_manager_is_refused(task_queues):
    with pytest.raises(PayloadError, match=r"all\(\)"):
        defer(functions.note, Row.objects)


def test_sql_of_parameters_is_that_of_this_database(task_queues, entries):
    arrived = travel(task_queues, Entry.objects.filter(price__gt=0, moment__isnull=True, blob=b""))
    assert connection.ops.quote_name("price") in str(arrived.query)
