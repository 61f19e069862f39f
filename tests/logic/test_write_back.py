"""What a view changed in its entities is written to their rows: every type of field, all or none."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from soc_tasks import write_back
from tests.specimen.models import Badge, Comment, Entry, Paper, Person, Program, Row, Seat, Senior, Student, Ticket
from tests.specimen.rows import make_entries

pytestmark = pytest.mark.django_db

NEW = {
    "alias": "new",
    "title": "100% of 'all' \\ \"those\"",
    "remark": None,
    "count": -7,
    "size": 9,
    "rating": 2.5,
    "price": Decimal("1.2500"),
    "day": date(2001, 2, 3),
    "moment": datetime(2001, 2, 3, 4, 5, 6, 7, tzinfo=UTC),
    "slot": time(1, 2, 3, 4),
    "span": timedelta(days=-1, microseconds=5),
    "token": uuid.UUID(int=77),
    "flag": True,
    "blob": b"\x00\xff%s?",
    "facts": {"a": [1, None, "ü"]},
}


def test_every_type_of_field_is_written():
    entry, other = make_entries(2)
    entry.program = Program.objects.create(name="Latin")
    for name, value in NEW.items():
        setattr(entry, name, value)
    assert write_back([entry], ["program", *NEW]) == 1
    written = Entry.objects.get(pk=entry.pk)
    assert {name: getattr(written, name) for name in NEW} == NEW
    assert written.program_id == entry.program_id
    assert Entry.objects.get(pk=other.pk).count == other.count


def test_one_statement_for_all_of_a_batch_and_no_other_field():
    Row.objects.bulk_create(Row(hits=number) for number in range(1200))
    rows = list(Row.objects.all())
    for row in rows:
        row.hits += 1000
    with CaptureQueriesContext(connection) as captured:
        assert write_back(iter(rows), ["hits", "hits"]) == 1200
    updates = [query["sql"] for query in captured if "UPDATE" in query["sql"]]
    assert len(updates) == 1
    assert updates[0].count("%s") + updates[0].count("?") <= 2
    assert sorted(Row.objects.values_list("hits", flat=True)) == list(range(1000, 2200))


def test_a_field_by_both_of_its_names_is_written_once():
    [entry] = make_entries(1)
    entry.program = Program.objects.create(name="Latin")
    assert write_back([entry], ["program", "program_id"]) == 1
    assert Entry.objects.get().program == entry.program


def test_only_the_fields_that_are_named():
    [entry] = make_entries(1)
    before = entry.title
    entry.title, entry.count = "changed", 42
    write_back([entry], ("count",))
    entry.refresh_from_db()
    assert (entry.title, entry.count) == (before, 42)


def test_values_that_differ_in_their_statement_are_all_written():
    """NULL stands otherwise than bytes do, on MySQL."""
    first, second, third = make_entries(3)
    first.blob, second.blob, third.blob = b"a", b"", b"c"
    assert write_back([first, second, third], ["blob"]) == 3
    assert [bytes(blob) for blob in Entry.objects.order_by("pk").values_list("blob", flat=True)] == [b"a", b"", b"c"]


def test_rows_that_are_gone_stay_so_and_are_not_counted():
    rows = Row.objects.bulk_create([Row(), Row(), Row()])
    for row in rows:
        row.hits = 5
    Row.objects.filter(pk=rows[1].pk).delete()
    assert write_back(rows, ["hits"]) == 2
    assert Row.objects.count() == 2


@pytest.mark.parametrize("kind", [Student, Senior])
def test_fields_of_a_parent_stand_in_its_table(kind):
    Student.objects.create(name="Ada", year=1)
    Person.objects.create(name="nobody's child")
    [student] = kind.objects.all()
    student.name, student.year = "Bea", 2
    assert write_back([student], ["name", "year"]) == 1
    assert list(Student.objects.values_list("name", "year")) == [("Bea", 2)]
    assert Person.objects.get(name="Bea").pk == student.pk


def test_keys_of_every_kind():
    ticket = Ticket.objects.create(kind=1)
    badge = Badge.objects.create(name="100%")
    seats = Seat.objects.bulk_create([Seat(row=1, number=1), Seat(row=1, number=2)])
    ticket.kind, badge.label = 2, "Gold"
    assert write_back([ticket], ["kind"]) == write_back([badge], ["label"]) == 1
    assert Ticket.objects.get().kind == 2
    assert Badge.objects.get().label == "Gold"
    with pytest.raises(ValueError, match=r"Seat\.number is part of a key"):
        write_back(seats, ["number"])


def test_a_related_instance_that_was_saved_meanwhile_lends_its_key():
    [entry] = make_entries(1)
    program = Program(name="late")
    entry.program = program
    with pytest.raises(ValueError, match="unsaved related object 'program'"):
        write_back([entry], ["program"])
    program.save()
    write_back([entry], ["program"])
    assert Entry.objects.get().program == program


def test_nothing_is_written_where_one_value_is_bad():
    rows = Row.objects.bulk_create([Row(), Row()])
    rows[0].hits, rows[1].hits = 1, "many"
    with pytest.raises(ValueError, match="many"):
        write_back(rows, ["hits"])
    rows[1].hits = F("hits") + 1
    with pytest.raises(ValueError, match=r"is the expression .*: use update\(\) of a queryset"):
        write_back(rows, ["hits"])
    assert set(Row.objects.values_list("hits", flat=True)) == {0}


def test_no_entities_are_no_work(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert write_back([], ["hits"]) == 0


@pytest.mark.parametrize(
    ("entities", "fields", "problem"),
    [
        ([Row(pk=1)], "hits", r"fields must be a list of names of fields, not 'hits'"),
        ([Row(pk=1)], [], "fields must be a list"),
        ([Row(pk=1)], ["nothing"], "Row has no field 'nothing'"),
        ([Row(pk=1)], ["id"], r"Row\.id is part of a key"),
        ([Entry(pk=1)], ["tags"], "no column of its own"),
        ([Entry(pk=1)], ["comments"], "no column of its own"),
        ([Paper(pk=1)], ["double"], "computed by the database"),
        ([Student(pk=1)], ["person_ptr"], "part of a key"),
        ([Row()], ["hits"], r"has no primary key: save\(\) it first"),
        ([Row(pk=1), Comment(pk=1)], ["hits"], "instances of one model, not of Comment, Row"),
        ([{"hits": 1}], ["hits"], "instances of one model, not of dict"),
    ],
)
def test_what_cannot_be_written_is_refused_before_anything_is(django_assert_num_queries, entities, fields, problem):
    with django_assert_num_queries(0), pytest.raises(ValueError, match=problem):
        write_back(entities, fields)


def test_what_was_never_read_is_not_written_back(django_assert_num_queries):
    Row.objects.create()
    [row] = Row.objects.only("pk")
    with django_assert_num_queries(0), pytest.raises(ValueError, match=r"hits of .* was never read"):
        write_back([row], ["hits"])


@pytest.mark.django_db(databases=["default", "other"])
def test_entities_go_where_they_came_from_or_where_they_are_told():
    row = Row.objects.using("other").create()
    Row.objects.create(pk=row.pk)
    row.hits = 1
    assert write_back([row], ["hits"]) == 1
    assert (Row.objects.get().hits, Row.objects.using("other").get().hits) == (0, 1)
    assert write_back([row], ["hits"], using="default") == 1
    assert Row.objects.get().hits == 1
    with pytest.raises(ValueError, match="belong to the databases default, other: write those of each"):
        write_back([Row.objects.get(), row], ["hits"])
