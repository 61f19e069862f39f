"""Key ranges: every row is in one of them, whatever the field, however few the rows."""

from __future__ import annotations

import functools
import itertools
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import Count

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.sharding import (
    default_key_ranges,
    find_key_ranges,
    sampled_key_ranges,
    sequential_int_key_ranges,
    uuid_key_ranges,
)
from tests.specimen.models import Badge, Entry, Person, Program, Row, Senior, Student, Tag, Ticket
from tests.specimen.rows import make_entries, walk

pytestmark = pytest.mark.django_db

FIELDS = [
    "pk", "code", "alias", "title", "remark", "count", "size", "rating", "price", "day", "moment", "slot", "span",
    "token", "flag", "program",
]  # fmt: skip


def make_rows(*keys):
    return Row.objects.bulk_create(Row(pk=key) for key in keys)


def visit(logic, ranges, **options):
    """Return the primary keys of each shard."""
    visited = []
    for start, end in ranges:
        visited.append(walk(logic, start, end_key=end, **options) if end else walk(logic, start, **options))
    return visited


def flat(shards):
    return list(itertools.chain.from_iterable(shards))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 100])
def test_every_row_is_in_one_shard_by_any_field(field, count):
    make_entries(40)
    logic = ModelLogic(Entry, field, batch_size=7)
    shards = visit(logic, find_key_ranges(logic, count))
    assert flat(shards) == walk(logic)
    assert len(flat(shards)) == 40
    assert len(shards) <= count


@pytest.mark.parametrize("number", [0, 1, 2, 3, 8])
@pytest.mark.parametrize("getter", [None, default_key_ranges, sequential_int_key_ranges, sampled_key_ranges])
def test_few_rows_or_none(number, getter):
    rows = make_rows(*range(1, number + 1))
    logic = ModelLogic(Row)
    ranges = find_key_ranges(logic, 5, getter=getter)
    assert flat(visit(logic, ranges)) == [row.pk for row in rows]
    assert len(ranges) == min(5, max(number, 1))


def test_dense_integers_are_divided_by_arithmetic():
    make_rows(*range(101, 201))
    assert default_key_ranges(Row.objects.all(), 4) == [(None, 126), (126, 151), (151, 176), (176, None)]
    assert sequential_int_key_ranges(Row.objects.all(), 4) == default_key_ranges(Row.objects.all(), 4)


def test_sparse_integers_are_divided_by_their_number():
    make_rows(1, 2, 3, 4, 5, 6, 7, 1_000_000)
    assert default_key_ranges(Row.objects.all(), 4) == [(None, 3), (3, 5), (5, 7), (7, None)]


def test_quantiles_are_exact():
    make_rows(*(number**2 for number in range(1, 101)))
    bounds = [start for start, _ in sampled_key_ranges(Row.objects.all(), 7)][1:]
    logic = ModelLogic(Row)
    sizes = [len(shard) for shard in visit(logic, find_key_ranges(logic, 7, getter=sampled_key_ranges))]
    assert len(bounds) == 6
    assert max(sizes) - min(sizes) <= 1


def test_quantiles_take_one_pass(django_assert_num_queries):
    make_rows(*range(1, 200, 3))
    with django_assert_num_queries(1):
        sampled_key_ranges(Row.objects.all(), 8)


def test_ties_are_never_divided():
    Row.objects.bulk_create(Row(hits=hits) for hits in [1] * 10 + [2] * 3 + [3] * 50 + [4])
    logic = ModelLogic(Row, "hits")
    ranges = sampled_key_ranges(Row.objects.order_by("hits"), 4)
    assert ranges == [(None, 3), (3, None)]
    shards = visit(logic, find_key_ranges(logic, 4))
    assert [len(shard) for shard in shards] == [13, 51]


def test_one_value_is_one_shard():
    Row.objects.bulk_create(Row(hits=7) for _ in range(9))
    assert sampled_key_ranges(Row.objects.order_by("hits"), 4) == [(None, None)]
    assert default_key_ranges(Row.objects.order_by("hits"), 4) == [(None, None)]


def test_nulls_come_with_the_last_shard():
    make_entries(40)
    Entry.objects.filter(flag=True).update(size=None)
    logic = ModelLogic(Entry, "size")
    assert find_key_ranges(logic, 3)[-1][1] is None
    Entry.objects.update(size=None)
    assert find_key_ranges(logic, 3) == [(None, None)]


def test_rows_that_come_later_are_in_a_shard():
    make_rows(10, 20, 30)
    logic = ModelLogic(Row)
    ranges = find_key_ranges(logic, 3)
    make_rows(1, 15, 40)
    assert flat(visit(logic, ranges)) == [1, 10, 15, 20, 30, 40]


@pytest.mark.skipif(connection.vendor == "mysql", reason="MariaDB has an order of UUIDs of its own")
def test_uuids_are_divided_without_a_look_at_the_rows(django_assert_num_queries):
    with django_assert_num_queries(0):
        ranges = uuid_key_ranges(Ticket.objects.all(), 4)
    assert ranges[1] == (uuid.UUID(int=1 << 126), uuid.UUID(int=1 << 127))
    Ticket.objects.bulk_create(Ticket(id=uuid.UUID(int=number << 120), kind=1) for number in range(256))
    logic = ModelLogic(Ticket)
    shards = visit(logic, find_key_ranges(logic, 4, getter=uuid_key_ranges))
    assert [len(shard) for shard in shards] == [64] * 4
    assert [len(shard) for shard in visit(logic, find_key_ranges(logic, 4))] == [64] * 4


def test_getters_refuse_other_types():
    with pytest.raises(ValueError, match=r"needs UUIDs, and specimen\.Row\.id"):
        uuid_key_ranges(Row.objects.all(), 2)
    with pytest.raises(ValueError, match=r"needs integers, and specimen\.Entry\.title"):
        sequential_int_key_ranges(Entry.objects.order_by("title"), 2)
    with pytest.raises(ValueError, match="ascend"):
        sampled_key_ranges(Row.objects.order_by("-hits"), 2)
    for count in (0, -1, 1001, True, "2", None):
        with pytest.raises(ValueError, match="number of shards"):
            sampled_key_ranges(Row.objects.all(), count)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Entry.objects.filter(count__gte=0),
        lambda: Entry.objects.filter(tags__name__in=["x", "y"]),
        lambda: Entry.objects.annotate(n=Count("tags")).filter(n__gte=1),
        lambda: Entry.objects.select_related("program").prefetch_related("tags").only("title", "program"),
        lambda: Entry.objects.filter(program__name="Music").order_by("title"),
        Entry.objects.none,
    ],
)
@pytest.mark.parametrize("order", ["pk", "title", "alias"])
def test_querysets_of_many_kinds(make, order):
    entries = make_entries(40)
    tags = [Tag.objects.create(name=name) for name in ("x", "y", "z")]
    for entry in entries[::2]:
        entry.tags.add(*tags)
    logic = ModelLogic(make(), order, batch_size=4)
    for getter in (None, sampled_key_ranges):
        assert flat(visit(logic, find_key_ranges(logic, 3, getter=getter))) == walk(logic)


@pytest.mark.parametrize("model", [Student, Senior])
def test_keys_of_a_parents_table(model):
    Person.objects.create(name="nobody")
    for year in range(10):
        model.objects.create(name=f"n{year % 3}", year=year)
    for order in ("pk", "year", "name"):
        logic = ModelLogic(model, order)
        shards = visit(logic, find_key_ranges(logic, 3))
        assert flat(shards) == walk(logic)
        assert len(shards) == 3


def test_a_filter_and_another_order():
    make_entries(40)
    logic = ModelLogic(Entry)
    ranges = find_key_ranges(logic, 3, filter={"flag": True}, order="code")
    assert flat(visit(logic, ranges, order="code")) == walk(logic, order="code")
    flagged = Entry.objects.filter(flag=True).count()
    sizes = [len(logic.getBatchOfData({"flag": True}, s, 1000, order="code", end_key=e)[0]) for s, e in ranges]
    assert sum(sizes) == flagged
    assert max(sizes) - min(sizes) <= 1


def fixed(queryset, shard_count, ranges=((None, None),)):
    """Return what it is told to."""
    return [pair[:shard_count] for pair in ranges]


def test_getters_of_ones_own():
    make_rows(*range(1, 11))
    logic, asked = ModelLogic(Row.objects.filter(pk__lt=10), "hits"), []

    def getter(queryset, shard_count):
        asked.append((queryset.query.order_by, queryset.count(), shard_count))
        return [(None, 5), (5, None)]

    assert len(find_key_ranges(logic, 4, getter=getter)) == 2
    assert asked == [(("hits",), 9, 4)]
    logic = ModelLogic(Row)
    for ranges in (
        [(1, 4), (4, 11)],
        [[1, 4], [4, 11]],
        ((4, None), (None, 4)),
        [(None, 4), (4, 4), (4, 100), (100, None)],
        [("1", "4"), ("4", "11")],
    ):
        found = find_key_ranges(logic, 9, getter=functools.partial(fixed, ranges=ranges))
        assert flat(visit(logic, found)) == list(range(1, 11))
        assert len(found) in (2, 3)


@pytest.mark.parametrize(
    ("ranges", "problem"),
    [
        ([(None, 5), (4, None)], "overlap"),
        ([(None, 5), (6, None)], "gap"),
        ([(None, 5), (None, 8), (8, None)], "overlap"),
        ([(None, None), (5, None)], "overlap"),
        ([(1, 5), (5, 10)], "leave rows out"),
        ([(2, 5), (5, None)], "leave rows out"),
        ([(None, 5)], "leave rows out"),
        ([], "leave all rows out"),
        ([(3, 3)], "leave all rows out"),
        ([(None, 7), (7, 3), (3, None)], "overlap"),
    ],
)
def test_ranges_that_are_none_are_refused_and_shown(ranges, problem):
    make_rows(*range(1, 11))
    with pytest.raises(ValueError, match=problem) as caught:
        find_key_ranges(ModelLogic(Row), 4, getter=functools.partial(fixed, ranges=ranges))
    assert "half-open" in str(caught.value)
    for start, end in ranges:
        assert f"({start!r}, {end!r})" in str(caught.value) or start == end


def test_nulls_behind_a_closed_end_are_rows_left_out():
    Badge.objects.create(name="a", label="x")
    logic = ModelLogic(Badge, "label")
    getter = functools.partial(fixed, ranges=[("a", "z")])
    assert len(find_key_ranges(logic, 4, getter=getter)) == 1
    Badge.objects.create(name="b", label=None)
    with pytest.raises(ValueError, match="leave rows out"):
        find_key_ranges(logic, 4, getter=getter)


def test_text_is_compared_by_the_database():
    Program.objects.bulk_create(Program(name=name) for name in ("a", "m", "z"))
    logic = ModelLogic(Program, "name")
    falling = functools.partial(fixed, ranges=[(None, "x"), ("x", "b"), ("b", None)])
    with pytest.raises(ValueError, match="'b' comes before 'x'"):
        find_key_ranges(logic, 4, getter=falling)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("title", ["b", "ø"]),
        ("token", [uuid.UUID(int=1 << 64), uuid.UUID(int=1 << 127)]),
        ("span", [timedelta(0), timedelta(hours=1)]),
        ("count", [0, 8]),
    ],
)
def test_ranges_may_come_in_any_order(name, bounds):
    make_entries(45)
    logic = ModelLogic(Entry, name)
    # The database's own order of these, as MariaDB's of UUIDs.
    lower, upper = bounds
    ranges = [(None, lower), (lower, upper), (upper, None)]
    for given in itertools.permutations(ranges):
        found = find_key_ranges(logic, 3, getter=functools.partial(fixed, ranges=given))
        assert flat(visit(logic, found)) == walk(logic)


def test_ranges_of_text_that_do_not_join_on_are_refused():
    make_entries(45)
    logic = ModelLogic(Entry, "title")
    for ranges in ([("b", None), (None, "a")], [("a", "b"), ("b", "a")], [(None, "b"), (None, "b"), ("b", None)]):
        with pytest.raises(ValueError, match=r"gap|overlap"):
            find_key_ranges(logic, 3, getter=functools.partial(fixed, ranges=ranges))


def test_a_getter_may_be_a_generator():
    make_rows(*range(1, 11))

    def getter(queryset, shard_count):
        yield None, 5
        yield 5, None

    assert flat(visit(ModelLogic(Row), find_key_ranges(ModelLogic(Row), 2, getter=getter))) == list(range(1, 11))


@pytest.mark.parametrize("ranges", [None, 5, "ab", [5], [(1, 2, 3)], [(1,)], {"a": 1}])
def test_what_are_no_ranges_is_a_type_error(ranges):
    with pytest.raises(TypeError, match="key_ranges_getter must return"):
        find_key_ranges(ModelLogic(Row), 4, getter=lambda queryset, shard_count: ranges)


def test_values_of_another_type_are_refused():
    with pytest.raises(ValueError, match="cannot take the value"):
        find_key_ranges(ModelLogic(Row), 4, getter=lambda queryset, shard_count: [(None, "x"), ("x", None)])
