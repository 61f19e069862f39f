"""The start of a run passes over the keys once at most: to divide them, to count them, or for both."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from django.db import connection
from django.db.models import BooleanField, F, Func

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import prepare_run
from soc_tasks.logic.sharding import sampled_key_ranges, sequential_int_key_ranges, uuid_key_ranges
from soc_tasks.meta import Inherited
from tests.plans import Watch
from tests.specimen.models import Entry, Parcel, Person, Program, Row, Student, Tag, Ticket

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "sqlite", reason="counts the steps of SQLite's virtual machine"),
]

NUMBER = 3000
SHARDS = 7


class Seen(Func):
    """True of every row, as often as a statement comes by."""

    function = "soc_seen"
    output_field = BooleanField()
    conditional = True


@pytest.fixture
def seen():
    """Give the list of the keys that statements have come by where a queryset asks for it."""
    keys = []
    connection.ensure_connection()
    connection.connection.create_function("soc_seen", 1, lambda key: bool(keys.append(key) or True))
    yield keys
    connection.connection.create_function("soc_seen", 1, None)


def prepare(queryset, order="pk", *, getter=None, shards=SHARDS, logic_filter=None, asked=None):
    plan = Plan(
        logic=ModelLogic(queryset, order),
        filter=logic_filter,
        order=asked,
        shards=shards,
        key_ranges_getter=getter,
    )
    return prepare_run(
        start_id="a" * 32,
        name="run",
        path="/x",
        script_name="",
        plan=plan,
        context={},
        inherited=Inherited(queue="default"),
    )


def measure(logic, shards, order=None, filter=None):
    """Return how many entities each shard really has."""
    sizes = []
    for shard in shards:
        size, key = 0, shard.start
        while True:
            entities, key = logic.getBatchOfData(filter, key, 1000, order=order, end_key=shard.end)
            size += len(entities)
            if key is None:
                break
        sizes.append(size)
    return sizes


def make_rows(step=1):
    Row.objects.bulk_create(Row(pk=number * step, hits=number % 90) for number in range(1, NUMBER + 1))


def make_entries():
    program = Program.objects.create(name="Music")
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    entries = Entry.objects.bulk_create(
        Entry(
            code=f"c{number * 7919 % 10007}",
            title=f"title {number % 40}",
            count=number,
            flag=number % 2 == 0,
            day=begin.date(),
            moment=None if number % 10 == 0 else begin + timedelta(minutes=number // 3),
            slot=begin.time(),
            span=timedelta(number),
            rating=0.5,
            price=1,
            program=program,
        )
        for number in range(NUMBER)
    )
    tags = Tag.objects.bulk_create(Tag(name=name) for name in "xyz")
    link = Entry.tags.through
    link.objects.bulk_create(link(entry=entry, tag=tag) for entry in entries[::2] for tag in tags)


@pytest.mark.parametrize("getter", [None, sequential_int_key_ranges])
def test_dense_integers_are_looked_at_where_the_index_ends(getter):
    Row.objects.bulk_create(Row(pk=number) for number in range(1, 30_001))
    with Watch() as watch:
        record, shards = prepare(Row.objects.all(), getter=getter)
    assert record.total == 30_000
    assert [shard.expected for shard in shards] == measure(ModelLogic(Row), shards)
    counted = [line for line in watch.explain() if "SCAN" in line]
    if getter is None:
        # One statement counts, which SQLite does by pages; all others are seeks.
        assert counted == ["SCAN specimen_row"]
        assert watch.steps < 30_000 / 2
    else:
        # Each shard's part by itself, which together are the whole.
        assert counted == []
        assert watch.steps < 30_000 * 5


@pytest.mark.parametrize(
    ("make", "model", "orders"),
    [
        (partial(make_rows, 1000), Row, ["pk", "hits"]),
        (make_entries, Entry, ["code", "title", "moment", "token", "program"]),
        (
            lambda: Ticket.objects.bulk_create(Ticket(id=uuid.UUID(int=n * 2**100), kind=n) for n in range(NUMBER)),
            Ticket,
            ["pk", "kind"],
        ),
        (lambda: Parcel.objects.bulk_create(Parcel(id=f"p{n * 7919 % 100003}") for n in range(NUMBER)), Parcel, ["pk"]),
    ],
    ids=["sparse", "fields", "uuids", "strings"],
)
def test_everything_else_is_divided_and_counted_by_one_statement(make, model, orders):
    make()
    for order in orders:
        with Watch() as watch:
            record, shards = prepare(model.objects.all(), order)
        assert record.total == NUMBER
        assert [shard.expected for shard in shards] == measure(ModelLogic(model, order), shards)
        # The ends of an index, a few places within it where there are integers, and the pass.
        passes = [line for line in watch.explain() if re.search(rf"SCAN {model._meta.db_table}\b", line)]
        assert len(passes) == 1, watch.statements
        assert len(watch.statements) <= (5 if (model, order) == (Row, "pk") else 1)


@pytest.mark.parametrize(
    ("order", "getter"),
    [
        *((order, getter) for order in ("pk", "hits") for getter in (None, sampled_key_ranges)),
        ("pk", sequential_int_key_ranges),
        ("hits", sequential_int_key_ranges),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_filtered_integers_are_seen_once(seen, order, getter, step):
    make_rows(step)
    wanted = Row.objects.filter(Seen("pk"), pk__gt=0, hits__gte=0)
    record, shards = prepare(wanted, order, getter=getter)
    if order == "hits" and getter is sequential_int_key_ranges:
        # There is no index on it: each end, and each part, is looked for in all of the table.
        assert record.total == NUMBER
        return
    assert len(seen) <= NUMBER + 2
    assert record.total == NUMBER
    assert [shard.expected for shard in shards] == measure(ModelLogic(Row, order), shards)


@pytest.mark.parametrize("getter", [None, sampled_key_ranges, uuid_key_ranges])
def test_filtered_uuids_are_seen_once(seen, getter):
    Ticket.objects.bulk_create(Ticket(id=uuid.UUID(int=number * 2**115), kind=1) for number in range(NUMBER))
    record, shards = prepare(Ticket.objects.filter(Seen("pk")), getter=getter)
    assert len(seen) == NUMBER
    assert record.total == NUMBER
    assert [shard.expected for shard in shards] == measure(ModelLogic(Ticket), shards)


@pytest.mark.parametrize("order", ["title", "moment", "code", "program", "token"])
@pytest.mark.parametrize("asked", [False, True])
def test_filtered_fields_are_seen_once(seen, order, asked):
    make_entries()
    wanted = Entry.objects.filter(Seen("pk"))
    plan = {"asked": order} if asked else {"order": order}
    record, shards = prepare(wanted, logic_filter={"count__lt": NUMBER}, **plan)
    assert len(seen) == NUMBER
    assert record.total == NUMBER
    assert [shard.expected for shard in shards] == measure(ModelLogic(Entry), shards, order)


@pytest.mark.parametrize("shards", [1, SHARDS])
@pytest.mark.parametrize("order", ["pk", "code"])
def test_a_filter_that_matches_nothing_is_one_pass(seen, shards, order):
    make_entries()
    record, made = prepare(Entry.objects.filter(Seen("pk"), count__lt=0), asked=order, shards=shards)
    assert len(seen) <= NUMBER
    assert (record.total, [shard.expected for shard in made]) == (0, [0])


@pytest.mark.parametrize("shards", [1, SHARDS])
def test_a_join_is_made_once(seen, shards):
    make_entries()
    wanted = Entry.objects.filter(Seen("pk"), tags__name__in=["x", "y"], program__name="Music").distinct()
    wanted.count()
    once = len(seen)
    seen.clear()
    record, made = prepare(wanted, shards=shards)
    assert 0 < len(seen) <= once
    assert record.total == NUMBER / 2
    assert sum(shard.expected for shard in made) == NUMBER / 2


def by_hand(queryset, shard_count):
    return [(None, 500), (500, 501), (501, 2000), (2000, None)]


def between(queryset, shard_count):
    return [(1, 500), (500, NUMBER + 1)]


@pytest.mark.parametrize("getter", [by_hand, between])
def test_ranges_of_ones_own_are_counted_once(seen, getter):
    make_rows()
    record, shards = prepare(Row.objects.filter(Seen("pk")), getter=getter)
    assert len(seen) == NUMBER
    assert record.total == NUMBER
    assert [shard.expected for shard in shards] == measure(ModelLogic(Row), shards)


def test_a_getter_that_changes_our_ranges_is_counted_anew():
    make_rows()

    def getter(queryset, shard_count):
        ranges = sampled_key_ranges(queryset, shard_count)
        ranges[0], ranges[1] = (None, 2), (2, ranges[1][1])
        return ranges

    record, shards = prepare(Row.objects.all(), getter=getter)
    assert record.total == NUMBER
    assert shards[0].expected == 1
    assert [shard.expected for shard in shards] == measure(ModelLogic(Row), shards)


def test_text_that_only_the_database_tells_apart_is_counted():
    for name in ("a", "B", "b", "c"):
        Person.objects.create(name=name)
    record, shards = prepare(Person.objects.all(), "name", shards=4)
    assert record.total == 4
    assert [shard.expected for shard in shards] == measure(ModelLogic(Person, "name"), shards)


@pytest.mark.parametrize("model", [Row, Entry, Ticket, Student])
@pytest.mark.parametrize("getter", [None, sampled_key_ranges])
def test_an_empty_table_needs_three_looks_at_most(model, getter):
    with Watch() as watch:
        record, shards = prepare(model.objects.all(), getter=getter)
    assert (record.total, [(shard.start, shard.expected) for shard in shards]) == (0, [(None, 0)])
    assert len(watch.statements) <= 3


def test_where_no_row_has_a_value_the_pass_still_tells_their_number(seen):
    make_entries()
    Entry.objects.update(moment=None)
    record, shards = prepare(Entry.objects.filter(Seen(F("pk"))), "moment")
    assert len(seen) == NUMBER
    assert (record.total, [shard.expected for shard in shards]) == (NUMBER, [NUMBER])
