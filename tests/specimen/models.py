"""Models of every kind that a batch can be made of, and some that none can."""

from __future__ import annotations

import functools
import uuid

from django.db import models
from django.utils.functional import cached_property


class CaselessField(models.CharField):
    """Compares without case where the database has a collation for that."""

    def db_parameters(self, connection):
        collation = {"sqlite": "nocase", "mysql": "utf8mb4_general_ci"}.get(connection.vendor)
        return {**super().db_parameters(connection), "collation": collation}


class Program(models.Model):
    """Ordered by name, which an order by foreign key must not follow."""

    name = models.CharField(max_length=50)

    class Meta:
        ordering = ("name",)


class Tag(models.Model):
    name = models.CharField(max_length=50)


class EntryQuerySet(models.QuerySet):
    """A manager's own methods stay at hand."""

    def counted(self, count):
        return self.filter(count=count)


class Entry(models.Model):
    """One field of every type that has an order, most of them with ties, some with NULLs."""

    program = models.ForeignKey(Program, models.CASCADE, null=True, related_name="entries")
    tags = models.ManyToManyField(Tag, related_name="entries")
    code = models.SlugField(unique=True)
    alias = models.CharField(max_length=50, unique=True, null=True)
    title = models.CharField(max_length=50)
    remark = models.TextField(null=True)
    count = models.IntegerField(db_index=True)
    size = models.PositiveSmallIntegerField(null=True)
    rating = models.FloatField(null=True)
    price = models.DecimalField(max_digits=12, decimal_places=4, null=True)
    mass = models.DecimalField(max_digits=30, decimal_places=10, default=0)
    day = models.DateField()
    moment = models.DateTimeField(null=True)
    slot = models.TimeField()
    span = models.DurationField()
    token = models.UUIDField(null=True)
    flag = models.BooleanField(db_index=True)
    blob = models.BinaryField(default=b"")
    facts = models.JSONField(default=dict)

    objects = EntryQuerySet.as_manager()

    class Meta:
        ordering = ("-title",)
        indexes = (
            models.Index(fields=["title", "id"], name="entry_title_seek"),
            models.Index(fields=["-day", "-id"], name="entry_day_seek"),
            models.Index(fields=["size"], condition=models.Q(count=1), name="entry_size_partial"),
            models.Index(fields=["-slot"], name="entry_slot_falling"),
        )


class Comment(models.Model):
    entry = models.ForeignKey(Entry, models.CASCADE, related_name="comments")
    text = models.CharField(max_length=50)


class Ticket(models.Model):
    """A primary key that SQLite does not keep as the rowid."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    kind = models.IntegerField()
    grade = models.IntegerField(null=True, db_index=True)

    class Meta:
        indexes = (models.Index(fields=["kind", "id"], name="ticket_kind_seek"),)


class Badge(models.Model):
    """A primary key of text, and text that is equal in either case."""

    name = models.CharField(max_length=50, primary_key=True)
    label = CaselessField(max_length=50, null=True)


class Person(models.Model):
    name = models.CharField(max_length=50, db_index=True)


class Student(Person):
    """Its primary key is a link to its parent's."""

    year = models.IntegerField(db_index=True)


class Event(models.Model):
    """Many rows, few values."""

    kind = models.IntegerField(null=True, db_index=True)
    label = models.CharField(max_length=50, db_index=True)
    flag = models.BooleanField(db_index=True)


class Parcel(models.Model):
    """Many rows, few values, keys of text."""

    id = models.CharField(max_length=32, primary_key=True)
    kind = models.IntegerField(null=True)

    class Meta:
        indexes = (models.Index(fields=["kind", "id"], name="parcel_kind_seek"),)


class Seat(models.Model):
    pk = models.CompositePrimaryKey("row", "number")
    row = models.IntegerField()
    number = models.IntegerField()


class Draft(models.Model):
    title = models.CharField(max_length=50)

    class Meta:
        abstract = True


class Row(models.Model):
    """Counts how often a task saw it."""

    hits = models.IntegerField(default=0)


class Profile(models.Model):
    """One for each person, who both know of each other."""

    person = models.OneToOneField(Person, models.CASCADE, related_name="profile")
    seat = models.ForeignKey("self", models.SET_NULL, null=True)


class Senior(Student):
    """The same rows, and another class."""

    class Meta:
        proxy = True

    def bow(self):
        """Do nothing."""


class Paper(models.Model):
    """A file, a picture's size, and values that are computed once."""

    file = models.FileField(upload_to="papers")
    title = models.CharField(max_length=50, default="untitled")
    pages = models.IntegerField(default=1)
    double = models.GeneratedField(
        expression=models.F("pages") * 2, output_field=models.IntegerField(), db_persist=True
    )

    @functools.cached_property
    def words(self):
        return self.title.split()

    @cached_property
    def letters(self):
        return list(self.title)

    @classmethod
    def from_db(cls, db, field_names, values, **more):
        instance = super().from_db(db, field_names, values, **more)
        instance._loaded = dict(zip(field_names, values, strict=False))
        return instance
