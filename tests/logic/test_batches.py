"""Every row once and in order: batches, keys, ranges and the ways to call for them."""

from __future__ import annotations

import itertools

import pytest
from django.db import connection
from django.db.models import F, Q

from soc_tasks.logic.batches import ModelLogic
from tests.specimen.models import Badge, Entry, Event, Person, Program, Student, Ticket
from tests.specimen.rows import make_entries, sort_rows, walk

pytestmark = pytest.mark.django_db(databases=["default", "other"])

FIELDS = [
    "id",
    "program_id",
    "code",
    "alias",
    "title",
    "remark",
    "count",
    "size",
    "rating",
    "price",
    "day",
    "moment",
    "slot",
    "span",
    "token",
    "flag",
]


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", FIELDS)
def test_every_row_comes_once_and_in_order(field, sign):
    rows = make_entries()
    expected = [row.pk for row in sort_rows(rows, field, descending=bool(sign))]
    for size in (1, 2, 7, 1000):
        assert walk(ModelLogic(Entry), order=sign + field, batch_size=size) == expected
        assert walk(ModelLogic(Entry, sign + field, batch_size=size)) == expected


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", FIELDS)
def test_rows_deleted_between_batches_take_no_other_with_them(field, sign):
    rows = sort_rows(make_entries(), field, descending=bool(sign))
    order = [row.pk for row in rows]
    gone = set()

    def delete(entities, next_key):
        # The entity that the next batch was to begin with, the one after it, and one that was visited.
        last = order.index(entities[-1].pk)
        doomed = [entities[0].pk, *order[last + 1 : last + 3]]
        gone.update(order[last + 1 : last + 3])
        Entry.objects.filter(pk__in=doomed).delete()

    visited = walk(ModelLogic(Entry, sign + field), after_batch=delete, batch_size=3)
    assert visited == [pk for pk in order if pk not in gone]
    assert gone


@pytest.mark.parametrize("field", FIELDS)
def test_rows_added_between_batches_harm_no_other(field):
    rows = make_entries(13)
    added = []

    def add(entities, next_key):
        # A twin of each row in turn, before or behind the cursor; as many as there are rows, or the walk never ends.
        if len(added) < len(rows):
            twin = Entry.objects.get(pk=rows[len(added)].pk)
            twin.pk, twin.code, twin.alias = None, f"twin-{len(added)}", None
            twin.save()
            added.append(twin.pk)

    visited = walk(ModelLogic(Entry, field), after_batch=add, batch_size=2)
    assert added
    assert len(visited) == len(set(visited))
    assert {row.pk for row in rows} <= set(visited)


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", FIELDS)
def test_ranges_between_any_two_keys_are_half_open(field, sign):
    logic = ModelLogic(Entry, sign + field)
    rows = sort_rows(make_entries(7), field, descending=bool(sign))
    keys = [logic.get_key(row) for row in rows] + [None]
    for first, end in itertools.combinations_with_replacement(range(len(keys)), 2):
        if keys[first] is not None:
            expected = [row.pk for row in rows[first:end]]
            assert walk(logic, keys[first], end_key=keys[end], batch_size=2) == expected
    for end, key in enumerate(keys):
        assert walk(logic, end_key=key, batch_size=3) == [row.pk for row in rows[:end]]
    assert logic.getBatchOfData(keys[-2], end_key=keys[0]) == ([], None)


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("field", FIELDS)
def test_ranges_between_values_take_ties_whole(field, sign):
    logic = ModelLogic(Entry, sign + field)
    rows = sort_rows(make_entries(), field, descending=bool(sign))
    values = list(dict.fromkeys(getattr(row, field) for row in rows))
    for value in values:
        key = logic.get_key_at(value)
        begin = next(index for index, row in enumerate(rows) if getattr(row, field) == value)
        assert walk(logic, key, batch_size=7) == [row.pk for row in rows[begin:]]
        assert walk(logic, end_key=key, batch_size=7) == [row.pk for row in rows[:begin]]
        assert walk(logic, key, end_key=key) == []
        # A range may begin amid the ties and end where they begin, or the other way round.
        amid = logic.get_key(rows[begin])
        assert walk(logic, key, end_key=amid) == walk(logic, amid, end_key=key) == []
    cuts = [None, *(logic.get_key_at(value) for value in values), None]
    parts = [walk(logic, start, end_key=end, batch_size=4) for start, end in itertools.pairwise(cuts)]
    assert list(itertools.chain.from_iterable(parts)) == [row.pk for row in rows]


def test_ranges_hold_where_the_database_takes_different_text_for_equal():
    Badge.objects.bulk_create(
        Badge(name=name, label=label)
        for name, label in zip("hcagbfed", ["a", "A", "b", "B", "a", "A", None, "b"], strict=True)
    )
    for sign in ("", "-"):
        logic = ModelLogic(Badge, f"{sign}label")
        whole, _ = logic.getBatchOfData()
        keys = [logic.get_key(badge) for badge in whole] + [None]
        for first, end in itertools.combinations(range(len(keys)), 2):
            expected = [badge.pk for badge in whole[first:end]]
            assert walk(logic, keys[first], end_key=keys[end], batch_size=2) == expected


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize(("model", "field"), [(Ticket, "pk"), (Ticket, "kind"), (Ticket, "grade"), (Badge, "pk")])
def test_other_primary_keys(model, field, sign):
    if model is Ticket:
        Ticket.objects.bulk_create(Ticket(kind=index % 3, grade=index % 2 or None) for index in range(20))
    else:
        Badge.objects.bulk_create(Badge(name=name) for name in "qwertzuiopASDF")
    if connection.vendor == "mysql":
        # MariaDB sorts its own UUIDs by their parts, and text without case.
        first = F(field).desc(nulls_last=True) if sign else F(field).asc(nulls_last=True)
        expected = list(model.objects.order_by(first, f"{sign}pk").values_list("pk", flat=True))
    else:
        expected = [row.pk for row in sort_rows(model.objects.all(), field, descending=bool(sign))]
    for size in (1, 3, 1000):
        assert walk(ModelLogic(model, sign + field), batch_size=size) == expected


@pytest.mark.parametrize("order", ["pk", "-pk", "id", "person_ptr_id", "name", "-year"])
def test_inherited_tables(order):
    Person.objects.create(name="not a student")
    for index in range(12):
        Student.objects.create(name=f"name {index % 3}", year=index % 2)
    expected = sort_rows(Student.objects.all(), order.removeprefix("-"), descending=order[0] == "-")
    assert walk(ModelLogic(Student, order), batch_size=5) == [row.pk for row in expected]


def test_foreign_keys_follow_their_value_not_the_related_ordering(django_assert_num_queries):
    make_entries()
    logic = ModelLogic(Entry, order_field="program", batch_size=5)
    _, key = logic.getBatchOfData()
    with django_assert_num_queries(1) as queries:
        logic.getBatchOfData(key)
    assert "JOIN" not in queries[0]["sql"]
    assert walk(logic) == walk(logic, order="program_id")


def test_a_key_as_the_only_argument():
    make_entries(10)
    logic = ModelLogic(Entry, batch_size=4)
    entities, key = logic.getBatchOfData()
    assert len(entities) == 4
    assert logic.getBatchOfData(key) == logic.getBatchOfData(None, key) == logic.getBatchOfData({}, start_key=key)
    entities, key = logic.getBatchOfData(logic.getBatchOfData(key)[1])
    assert len(entities) == 2
    assert key is None
    with pytest.raises(TypeError, match="two start keys"):
        logic.getBatchOfData("[1]", "[2]")


def test_the_key_is_that_of_the_next_entity():
    rows = make_entries(3)
    logic = ModelLogic(Entry)
    assert logic.getBatchOfData(batch_size=1)[1] == logic.get_key(rows[1]) == f"[{rows[1].pk}]"
    assert logic.getBatchOfData(batch_size=3)[1] is None


def test_keys_are_short_readable_and_the_same_everywhere():
    entry = Entry(pk=17, code="c", moment=None, title="ø", flag=True)
    logic = ModelLogic(Entry)
    assert logic.get_key(entry) == "[17]"
    assert logic.get_key(entry, order="-id") == "[17]"
    assert logic.get_key(entry, order="code") == '["code","c"]'
    assert logic.get_key(entry, order="moment") == '["moment",null,17]'
    assert logic.get_key(entry, order="title") == r'["title","\u00f8",17]'
    assert logic.get_key(entry, order="program") == '["program_id",null,17]'
    assert logic.get_key_at("2024-01-02 04:04:05.000006+01:00", order="moment") == (
        '["moment","2024-01-02T03:04:05.000006+00:00"]'
    )


def test_filters_narrow_the_source():
    rows = make_entries()
    logic = ModelLogic(Entry.objects.filter(flag=True))
    expected = [row.pk for row in rows if row.flag and row.count == 7]
    for narrow in ({"count": 7}, Q(count=7), Q(count=7) & ~Q(code="")):
        assert [row.pk for row in logic.getBatchOfData(narrow, order="pk")[0]] == expected
        assert logic.count(narrow) == len(expected)
    assert logic.count() == sum(row.flag for row in rows)
    with pytest.raises(TypeError, match="dict of lookups or a Q"):
        logic.getBatchOfData(["count"])


@pytest.mark.parametrize("size", [0, -1, 1001, 2**70, True, 1.0, "5"])
def test_batch_sizes_out_of_bounds(size):
    with pytest.raises(ValueError, match="from 1 to 1000"):
        ModelLogic(Entry, batch_size=size)
    with pytest.raises(ValueError, match="from 1 to 1000"):
        ModelLogic(Entry).getBatchOfData(batch_size=size)


@pytest.mark.parametrize("order", ["", "-", "--count", "?", "nothing", "tags", "program__name", "comments", 7, "a,b"])
def test_orders_that_are_none(order):
    with pytest.raises(ValueError, match="one concrete field"):
        ModelLogic(Entry, order_field=order)
    with pytest.raises(ValueError, match="one concrete field"):
        ModelLogic(Entry).getBatchOfData(order=order)


@pytest.mark.parametrize("order", ["blob", "facts"])
def test_orders_without_plain_values(order):
    with pytest.raises(ValueError, match="plain values"):
        ModelLogic(Entry, order_field=order)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="other databases keep decimals as they are")
def test_decimals_that_sqlite_keeps_as_rounded_floats():
    with pytest.raises(ValueError, match="15 digits"):
        ModelLogic(Entry, order_field="mass").getBatchOfData()


BAD_KEYS = [
    *("", "x", "[]", "{}", "17", "null", "[null]", "[1,2]", '["1"]', "[true]", "[1.0]", "[NaN]", "[1e999]"),
    *("[[1]]", '[{"a":1}]', f"[{2**70}]", f"[{-(2**63) - 1}]", "[" * 100_000, '["\\ud800"]', '["id",1]', "[1"),
    *('["title","a",1]', '["count",1,1]', '["code","x"]', 17, b"[17]", ["17"]),
]


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: repr(key)[:30])
def test_keys_that_are_none_of_ours(key):
    logic = ModelLogic(Entry)
    with pytest.raises(ValueError, match=r"is no key of specimen\.Entry in the order of pk"):
        logic.getBatchOfData(None, key)
    with pytest.raises(ValueError, match=r"is no key of specimen\.Entry in the order of pk"):
        logic.getBatchOfData(end_key=key)


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("title", "[17]"),
        ("title", '["title",17,1]'),
        ("title", '["title",null,1]'),
        ("title", '["title","a","1"]'),
        ("title", '["title","a",null]'),
        ("title", '["title","a",1,1]'),
        ("title", '["title"]'),
        ("title", '["title","\\udfff",1]'),
        ("code", '["code","a",1]'),
        ("count", '["size",1,1]'),
        ("count", f'["count",{2**70},1]'),
        ("size", '["size",1.5,1]'),
        ("rating", '["rating","x",1]'),
        ("price", '["price",1.5,1]'),
        ("price", '["price","NaN",1]'),
        ("price", '["price","1e30",1]'),
        ("day", '["day","2024-02-30",1]'),
        ("day", '["day","2024-02-03T00:00:00",1]'),
        ("moment", '["moment","2024-02-03",1]'),
        ("moment", '["moment","2024-02-03T00:00:00",1]'),
        ("moment", '["moment","2024-02-03T00:00:00+01:00",1]'),
        ("moment", '["moment","0001-01-01T00:00:00+05:00",1]'),
        ("slot", '["slot","25:00",1]'),
        ("span", '["span","1",1]'),
        ("token", '["token","1",1]'),
        ("flag", '["flag",1,1]'),
        ("program", '["program_id","1",1]'),
        ("program", f'["program_id",{2**70},1]'),
    ],
)
def test_keys_that_are_none_of_this_order(order, key):
    make_entries(3)
    with pytest.raises(ValueError, match="is no key of"):
        ModelLogic(Entry).getBatchOfData(key, order=order)


def test_values_that_no_key_can_hold():
    logic = ModelLogic(Entry)
    with pytest.raises(ValueError, match="never NULL"):
        logic.get_key_at(None, order="title")
    with pytest.raises(ValueError, match="cannot take the value"):
        logic.get_key_at("soon", order="moment")


@pytest.mark.parametrize("field", FIELDS)
def test_a_batch_takes_three_queries_at_most(field, django_assert_max_num_queries):
    make_entries()
    logic = ModelLogic(Entry, field)
    key = None
    for _ in range(11):
        with django_assert_max_num_queries(1 if field in ("id", "code") else 3):
            _, key = logic.getBatchOfData(None, key, 3)


def test_each_database_has_rows_of_its_own():
    here, there = make_entries(5), make_entries(9, using="other", seed=3)
    logic = ModelLogic(Entry.objects.using("other"), "title", batch_size=2)
    assert logic.using == "other"
    assert walk(logic) == [row.pk for row in sort_rows(there, "title")]
    assert logic.count() == 9
    assert ModelLogic(Entry).using == "default"
    assert ModelLogic(Entry).count() == len(here)
    entities, _ = logic.getBatchOfData()
    assert {entity._state.db for entity in entities} == {"other"}


class Elsewhere:
    """A router that reads from the other database."""

    def db_for_read(self, model, **hints):
        return "other"


def test_the_router_chooses_the_database(settings):
    logic = ModelLogic(Program)
    Program.objects.using("other").create(name="there")
    assert logic.getBatchOfData() == ([], None)
    settings.DATABASE_ROUTERS = [Elsewhere()]
    assert logic.using == "other"
    assert [program.name for program in logic.getBatchOfData()[0]] == ["there"]


def test_no_rows_at_all():
    for field in ("pk", "kind", "-kind", "label", "flag"):
        assert ModelLogic(Event, field).getBatchOfData() == ([], None)
        assert ModelLogic(Event, field).count() == 0
