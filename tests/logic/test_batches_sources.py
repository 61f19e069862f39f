"""What a ModelLogic keeps of its queryset, what it drops, and what it refuses."""

from __future__ import annotations

import pytest
from django.db.models import Count, F, Prefetch, Window
from django.db.models.functions import Rank

from soc_tasks.logic.batches import ModelLogic
from tests.specimen.models import Badge, Comment, Draft, Entry, Seat, Tag
from tests.specimen.rows import make_entries, sort_rows, walk

pytestmark = pytest.mark.django_db


@pytest.fixture
def entries():
    rows = make_entries(20)
    tags = Tag.objects.bulk_create(Tag(name=name) for name in "abc")
    for index, row in enumerate(rows):
        row.tags.set(tags[: index % 4])
    return rows


def test_ordering_is_dropped(entries):
    expected = [row.pk for row in entries]
    for queryset in (
        Entry.objects.order_by("title"),
        Entry.objects.order_by("program"),
        Entry.objects.order_by("?"),
        Entry.objects.reverse(),
        Entry.objects.order_by("title").reverse(),
        Entry.objects.extra(order_by=["-code"]),
    ):
        assert walk(ModelLogic(queryset), batch_size=6) == expected
        assert walk(ModelLogic(queryset, "-pk"), batch_size=6) == expected[::-1]


def test_the_queryset_itself_stays_as_it_is(entries):
    queryset = Entry.objects.order_by("-title").distinct()
    assert len(queryset) == 20
    logic = ModelLogic(queryset)
    Entry.objects.all().delete()
    assert logic.getBatchOfData() == ([], None)
    assert len(queryset) == 20
    assert queryset.query.distinct
    assert queryset.query.order_by == ("-title",)


def test_managers_and_their_methods(entries):
    assert ModelLogic(Entry.objects).count() == 20
    assert ModelLogic(Entry.objects.counted(7)).count() == sum(row.count == 7 for row in entries)


def test_related_rows_come_along(entries, django_assert_num_queries):
    logic = ModelLogic(Entry.objects.select_related("program").prefetch_related("tags"), "title", batch_size=6)
    _, key = logic.getBatchOfData()
    with django_assert_num_queries(3):  # the ties, the values behind them, the tags of both at once
        batch, _ = logic.getBatchOfData(key)
    with django_assert_num_queries(0):
        for entry in batch:
            assert entry.program is None or entry.program.name
            assert list(entry.tags.all()) is not None


def test_prefetch_stops_at_the_batch(entries, django_assert_num_queries):
    for entry in entries:
        Comment.objects.create(entry=entry, text=entry.code)
    prefetch = Prefetch("comments", Comment.objects.order_by("text"), to_attr="said")
    logic = ModelLogic(Entry.objects.prefetch_related(prefetch), batch_size=3)
    with django_assert_num_queries(2) as queries:
        _, key = logic.getBatchOfData()
    assert str(entries[2].pk) in queries[1]["sql"]
    assert f", {entries[3].pk})" not in queries[1]["sql"]
    assert [entry.said[0].text for entry in logic.getBatchOfData(key)[0]] == [row.code for row in entries[3:6]]


def test_deferred_fields_stay_deferred_but_the_key(entries, django_assert_max_num_queries):
    for queryset in (
        Entry.objects.only("code"),
        Entry.objects.only("pk"),
        Entry.objects.defer("price", "program", "title", "blob"),
        Entry.objects.defer("price"),
    ):
        for field in ("price", "program", "title"):
            with django_assert_max_num_queries(3):
                batch, _ = ModelLogic(queryset, f"-{field}", batch_size=5).getBatchOfData()
            deferred = batch[0].get_deferred_fields()
            assert deferred == queryset[0].get_deferred_fields() - {field, f"{field}_id"}


def test_annotations_are_kept(entries):
    logic = ModelLogic(Entry.objects.annotate(half=F("count") / 2), "count", batch_size=3)
    batch, key = logic.getBatchOfData()
    assert all(int(entry.half) == int(entry.count / 2) for entry in batch + logic.getBatchOfData(key)[0])


@pytest.mark.parametrize("order", ["pk", "-title", "program", "code"])
def test_aggregates_are_kept(entries, order):
    queryset = Entry.objects.annotate(tagged=Count("tags")).prefetch_related("tags")
    logic = ModelLogic(queryset, order, batch_size=3)
    field = order.removeprefix("-").replace("program", "program_id")
    ordered = sort_rows(entries, field, descending=order[0] == "-")
    assert walk(logic) == [row.pk for row in ordered]
    batch, _ = logic.getBatchOfData(batch_size=20)
    assert [entry.tagged for entry in batch] == [len(entry.tags.all()) for entry in batch]
    many = ModelLogic(queryset.filter(tagged__gte=2), order, batch_size=3)
    assert walk(many) == [row.pk for row in ordered if entries.index(row) % 4 >= 2]
    assert [entry.tagged for entry in many.getBatchOfData({"tagged": 3})[0]] == [3, 3, 3]


@pytest.mark.parametrize("order", ["pk", "-title", "program", "code"])
def test_joins_to_many_repeat_no_entity(entries, order):
    field = order.removeprefix("-").replace("program", "program_id")
    ordered = sort_rows(entries, field, descending=order[0] == "-")
    expected = [row.pk for row in ordered if entries.index(row) % 4]
    joined = Entry.objects.filter(tags__name__gte="a")
    for queryset in (joined, joined.distinct(), joined.select_related("program").only("code", "program")):
        logic = ModelLogic(queryset, order)
        for size in (1, 2, 1000):
            assert walk(logic, batch_size=size) == expected
        assert logic.count() == 15
    logic = ModelLogic(Entry, order, batch_size=1000)
    assert [row.pk for row in logic.getBatchOfData({"tags__name__gte": "a"})[0]] == expected
    assert logic.count({"tags__name__gte": "a"}) == 15


def test_joins_to_many_keep_what_comes_along(entries, django_assert_num_queries):
    queryset = Entry.objects.filter(tags__name__gte="a").select_related("program").prefetch_related("tags")
    with django_assert_num_queries(2):
        for entry in ModelLogic(queryset.defer("blob")).getBatchOfData()[0]:
            assert entry.get_deferred_fields() == {"blob"}
            assert entry.program is None or entry.program.name
            assert len(entry.tags.all()) > 0


def test_joins_to_one_stay_joins(entries, django_assert_num_queries):
    with django_assert_num_queries(1) as queries:
        ModelLogic(Entry.objects.filter(program__name="Music")).getBatchOfData()
    assert queries[0]["sql"].count("SELECT") == 1


def test_none_and_empty_in(entries, django_assert_num_queries):
    with django_assert_num_queries(0):
        for queryset in (Entry.objects.none(), Entry.objects.filter(pk__in=[])):
            assert ModelLogic(queryset).getBatchOfData() == ([], None)
            assert ModelLogic(queryset, "-program").getBatchOfData() == ([], None)
            assert ModelLogic(queryset).count() == 0
        assert ModelLogic(Entry).getBatchOfData({"pk__in": []}) == ([], None)


REFUSED = {
    "sliced": lambda: Entry.objects.all()[:10],
    "combines": lambda: Entry.objects.filter(pk=1).union(Entry.objects.filter(pk=2)),
    "no entities": lambda: Entry.objects.values("title"),
    "values_list": lambda: Entry.objects.values_list("title").annotate(n=Count("pk")),
    "distinct": lambda: Entry.objects.distinct("title"),
    "window": lambda: Entry.objects.annotate(rank=Window(Rank(), order_by="title")),
    "repeats": lambda: Entry.objects.annotate(tag=F("tags__name")),
    "tables": lambda: Entry.objects.extra(tables=["specimen_tag"]),
    "composite": lambda: Seat,
    "abstract": lambda: Draft,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_sources_that_cannot_be_read_from_a_key_on(reason):
    with pytest.raises(ValueError, match=reason):
        ModelLogic(REFUSED[reason]())


@pytest.mark.parametrize("reason", ["sliced", "combines"])
def test_instead_of_a_part_its_keys_are_iterated_over(reason):
    entries = make_entries(20)
    rows = Entry.objects.order_by()
    part = {
        "sliced": rows.order_by("pk")[5:9],
        "combines": rows.filter(pk=entries[3].pk).union(rows.filter(pk=entries[7].pk)),
    }[reason]
    with pytest.raises(ValueError, match=r"filter\(pk__in=list\(queryset\.values_list\('pk', flat=True\)\)\)"):
        ModelLogic(part)
    keys = list(part.values_list("pk", flat=True))
    assert walk(ModelLogic(Entry.objects.filter(pk__in=keys), batch_size=3)) == sorted(keys)


@pytest.mark.parametrize("source", [None, "student", Entry(), [], Entry.objects.raw("SELECT 1")])
def test_sources_that_are_none(source):
    with pytest.raises(TypeError, match="model class or a queryset"):
        ModelLogic(source)


def test_repr_names_model_and_order():
    assert repr(ModelLogic(Badge, "-label")) == "ModelLogic(specimen.Badge, order_field='-label', batch_size=100)"
