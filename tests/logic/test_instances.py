"""Model instances as arguments: as they were when the function was deferred."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.files.base import ContentFile
from django.db import models
from django.db.models import Count, F, Value
from django.db.models.fields.files import FieldFile
from django.db.models.functions import Now

from soc_tasks import PayloadError, defer
from soc_tasks.logic.calls import Call, read_call, write_call
from tests.specimen import functions
from tests.specimen.functions import note
from tests.specimen.models import Badge, Entry, Paper, Person, Profile, Program, Seat, Senior, Student, Tag, Ticket
from tests.specimen.rows import make_entries

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def carry(value, *, related=False):
    [again] = read_call(write_call(Call(function=note, args=(value,), kwargs={}), related=related).text).args
    return again


def fields_of(instance):
    """Everything that is in the fields of an instance, with its types."""
    names = [field.attname for field in instance._meta.concrete_fields if field.attname in vars(instance)]
    plain = {}
    for name in names:
        value = vars(instance)[name]
        value = bytes(value) if isinstance(value, memoryview) else value
        value = value.name or "" if isinstance(value, FieldFile) else value
        plain[name] = (type(value), value)
    return plain


def check(instance, again):
    assert type(again) is type(instance)
    assert fields_of(again) == fields_of(instance)
    assert again._state.adding is instance._state.adding
    assert again._state.db == instance._state.db
    assert again.get_deferred_fields() == instance.get_deferred_fields()


FACTS = [
    {},
    None,
    [1, 2.5, "x", None, True, {"a": []}],
    {"text": "x"},
    {"__soc__": "field", "v": "x"},
    {"__soc__": "model", "v": {"model": "specimen.Tag", "fields": {}}},
    {"__soc__": "dict", "v": {}},
    "text",
    '{"a": 1}',
    5,
]


def test_every_field_comes_back_as_it_was(django_assert_num_queries):
    make_entries()
    for entry in Entry.objects.all():
        with django_assert_num_queries(0):
            again = carry(entry)
        check(entry, again)
        assert again == entry


@pytest.mark.parametrize("facts", FACTS, ids=repr)
@pytest.mark.parametrize("blob", [b"", b"\x00\xff", memoryview(b"\x00a")], ids=repr)
def test_json_and_bytes_come_back_as_they_were(facts, blob):
    make_entries(1)
    entry = Entry.objects.get()
    entry.facts, entry.blob = facts, blob
    check(entry, carry(entry))
    entry.facts = [facts]
    entry.save()
    entry = Entry.objects.get()
    check(entry, carry(entry))


def test_values_that_were_set_and_not_saved_travel_as_they_are():
    entry = Entry(title=5, count="7", price="1.50", moment="2026-01-02", day=datetime(2026, 1, 2, tzinfo=UTC))
    check(entry, carry(entry))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Person.objects.create(name="a"),
        lambda: Student.objects.create(name="a", year=1),
        lambda: Senior.objects.create(name="a", year=1),
        lambda: Senior.objects.get(pk=Student.objects.create(name="a", year=1).pk),
        lambda: Person.objects.get(pk=Student.objects.create(name="a", year=1).pk).student,
        lambda: Ticket.objects.create(kind=1),
        lambda: Badge.objects.create(name="ü", label="x"),
        lambda: Seat.objects.create(row=1, number=2),
        lambda: Paper.objects.create(title="a", pages=3),
        lambda: Paper.objects.get(pk=Paper.objects.create(title="a", pages=3).pk),
        lambda: Profile.objects.create(person=Person.objects.create(name="a")),
        lambda: Tag.objects.using("other").create(name="a"),
        # Not saved.
        Tag,
        lambda: Tag(pk=5, name="given"),
        lambda: Student(name="a"),
        Ticket,
        lambda: Seat(row=1, number=2),
        lambda: Paper(pages=3),
        lambda: Program.objects.using("other").create(name="gone").delete() and Program(pk=None, name="gone"),
    ],
    ids=range(19),
)
def test_models_of_every_kind(make, django_assert_num_queries):
    instance = make()
    with django_assert_num_queries(0), django_assert_num_queries(0, using="other"):
        again = carry(instance)
    check(instance, again)
    assert again.pk == instance.pk
    assert (again == instance) is (instance.pk is not None and again.pk is not None)


def test_what_came_back_can_be_saved():
    student = Student.objects.create(name="a", year=1)
    again = carry(student)
    again.year = 2
    again.save()
    assert (Student.objects.get().year, Student.objects.get().name) == (2, "a")
    new = carry(Student(name="new", year=3))
    new.save()
    assert Student.objects.count() == 2
    other = carry(Tag.objects.using("other").create(name="there"))
    other.name = "changed"
    other.save()
    assert Tag.objects.using("other").get().name == "changed"
    assert Tag.objects.count() == 0


def test_instances_are_as_they_were_when_deferred(task_queues):
    tag = Tag.objects.create(name="then")
    functions.calls.clear()
    defer(note, tag, [tag])
    tag.name = "now"
    tag.save()
    task_queues.process_task_queues()
    [((first, [second]), _)] = functions.calls
    assert (first.name, second.name, first.pk) == ("then", "then", tag.pk)


def test_deferred_fields_stay_deferred(django_assert_num_queries):
    make_entries(1)
    for entry in (Entry.objects.only("title").get(), Entry.objects.defer("facts", "blob").get()):
        deferred = entry.get_deferred_fields()
        with django_assert_num_queries(0):
            again = carry(entry)
        assert again.get_deferred_fields() == deferred
        check(entry, again)
        with django_assert_num_queries(1):
            assert again.facts == {}


def test_from_db_is_called_with_the_fields_in_their_order():
    paper = Paper.objects.create(title="a b", pages=3)
    again = carry(Paper.objects.only("title").get())
    assert again._loaded == {"id": paper.pk, "title": "a b"}


# Files


def test_a_saved_file_travels_by_its_name(settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    paper = Paper(title="x")
    paper.file.save("a.txt", ContentFile(b"hello"))
    for instance in (paper, Paper.objects.get()):
        again = carry(instance)
        assert again.file.name == paper.file.name
        assert again.file.read() == b"hello"
        again.file.close()
    assert carry(Paper()).file.name in (None, "")


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_file_that_is_not_saved_is_refused(task_queues, looked_at):
    paper = Paper(title="x", file=ContentFile(b"hello", name="a.txt"))
    if looked_at:
        assert paper.file
    before = dict(vars(paper))
    with pytest.raises(PayloadError, match=r"args\[0\]\.file is a file that is not saved yet"):
        defer(note, paper)
    assert vars(paper) == before
    task_queues.assertNumTasksEquals(0)


# What is beside the fields


def test_annotations_and_what_was_set_travel_and_what_is_computed_does_not(django_assert_num_queries):
    program = Program.objects.create(name="a")
    make_entries(3)
    program = Program.objects.annotate(size=Count("entries"), word=Value("x")).get(pk=program.pk)
    program.note = {"a": [1, (2,)]}
    program._private = object()
    with django_assert_num_queries(0):
        again = carry(program)
    assert (again.size, again.word, again.note) == (0, "x", {"a": [1, (2,)]})
    assert not hasattr(again, "_private")


def test_cached_properties_are_computed_again():
    paper = Paper(title="a b")
    assert (paper.words, paper.letters) == (["a", "b"], ["a", " ", "b"])
    again = carry(paper)
    assert {"words", "letters"} & vars(again).keys() == set()
    again.title = "c"
    assert (again.words, again.letters) == (["c"], ["c"])


def test_what_was_set_and_cannot_travel_is_refused_by_its_name(task_queues):
    tag = Tag(name="x")
    tag.owner = {"a": object()}
    with pytest.raises(PayloadError, match=r"args\[0\]\['t'\]\.owner\['a'\] is of type builtins\.object"):
        defer(note, {"t": tag})
    task_queues.assertNumTasksEquals(0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", F("count") + 1),
        ("count", F("size")),
        ("moment", Now()),
        ("title", Value("x")),
        ("title", "a\x00b"),
        ("title", "\ud800"),
        ("remark", ["a", "\x00"]),
        ("rating", float("nan")),
        ("rating", float("inf")),
        ("price", Decimal("NaN")),
        ("price", Decimal("Infinity")),
        ("count", 10**5000),
        ("count", object()),
        ("facts", {"a": float("nan")}),
        ("facts", {"a": "\x00"}),
        ("facts", {"a": object()}),
        ("token", object()),
    ],
    ids=lambda part: part if isinstance(part, str) and part.isidentifier() else type(part).__name__,
)
def test_values_that_are_none_yet_or_that_no_message_carries_are_refused(task_queues, field, value):
    make_entries(1)
    entry = Entry.objects.get()
    setattr(entry, field, value)
    with pytest.raises(PayloadError, match=rf"kwargs\['entry'\]\.{field}"):
        defer(note, entry=entry)
    task_queues.assertNumTasksEquals(0)


# Related ones


def cached(instance):
    return {name for name, value in instance._state.fields_cache.items() if value is not None}


def test_the_caches_of_related_instances_are_wiped_and_the_argument_is_not_touched(django_assert_num_queries):
    program = Program.objects.create(name="a")
    make_entries(1)
    Entry.objects.update(program=program)
    entry = Entry.objects.select_related("program").prefetch_related("tags").get()
    before = copy.copy(vars(entry)), dict(entry._state.fields_cache), dict(entry._prefetched_objects_cache)
    with django_assert_num_queries(0):
        again = carry(entry)
    assert (vars(entry), entry._state.fields_cache, entry._prefetched_objects_cache) == before
    assert cached(again) == set()
    assert not hasattr(again, "_prefetched_objects_cache")
    with django_assert_num_queries(1):
        assert again.program == program
    with django_assert_num_queries(1):
        assert list(again.tags.all()) == []


def test_the_caches_are_kept_where_that_is_asked_for(task_queues, django_assert_num_queries):
    program = Program.objects.create(name="then")
    make_entries(1)
    Entry.objects.update(program=program)
    entry = Entry.objects.select_related("program").get()
    functions.calls.clear()
    defer(note, entry, _wipe_related_caches=False)
    Program.objects.update(name="now")
    task_queues.process_task_queues()
    [((again,), _)] = functions.calls
    with django_assert_num_queries(0):
        assert again.program.name == "then"
    assert again.program._state.adding is False


def test_instances_that_have_each_other_travel_together(django_assert_num_queries):
    person = Person.objects.create(name="a")
    profile = Profile.objects.create(person=person)
    profile.seat = profile
    person = Person.objects.select_related("profile").get()
    for start, path in ((person, ("profile", "person")), (person.profile, ("person", "profile"))):
        with django_assert_num_queries(0):
            again = carry(start, related=True)
            first = getattr(again, path[0])
            assert first == getattr(start, path[0])
            assert getattr(first, path[1]) is again
    # One that has itself.
    again = carry(profile, related=True)
    assert again.seat_id == profile.pk
    assert cached(again) == {"person"}


def test_a_related_one_that_is_known_to_be_none_stays_so(django_assert_num_queries):
    make_entries(1)
    Entry.objects.update(program=None)
    entry = Entry.objects.select_related("program").get()
    again = carry(entry, related=True)
    with django_assert_num_queries(0):
        assert again.program is None


def test_bound_methods_of_instances_are_deferred_with_them(task_queues):
    defer(Tag(name="x").save)
    task_queues.process_task_queues()
    assert Tag.objects.get().name == "x"
    senior = Senior.objects.create(name="a", year=1)
    assert carry(senior.bow).__self__ == senior


# PostgreSQL's own


@pytest.fixture
def shelf():
    """A model with fields that only PostgreSQL has; it needs no table to travel."""
    pytest.importorskip("psycopg")
    from django.apps import apps
    from django.contrib.postgres import fields

    class Shelf(models.Model):
        names = fields.ArrayField(models.CharField(max_length=10), null=True)
        grid = fields.ArrayField(fields.ArrayField(models.IntegerField()), null=True)
        days = fields.ArrayField(models.DateField(), null=True)
        years = fields.IntegerRangeField(null=True)
        spans = fields.ArrayField(fields.DateTimeRangeField(), null=True)
        when = fields.DateTimeRangeField(null=True)
        facts = fields.HStoreField(null=True)

        class Meta:
            app_label = "specimen"
            managed = False

    yield Shelf
    del apps.all_models["specimen"]["shelf"]
    apps.clear_cache()


def test_fields_that_only_postgresql_has(shelf):
    from django.db.backends.postgresql.psycopg_any import DateTimeTZRange, NumericRange

    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    instance = shelf(
        names=["a", "", "ü"],
        grid=[[1, 2], []],
        days=[moment.date()],
        years=NumericRange(1, None, "[)"),
        spans=[DateTimeTZRange(moment, moment, "[]"), DateTimeTZRange(empty=True)],
        when=DateTimeTZRange(None, moment),
        facts={"a": "b", "__soc__": None},
    )
    again = carry(instance)
    assert fields_of(again) == fields_of(instance)
    check(shelf(), carry(shelf()))
