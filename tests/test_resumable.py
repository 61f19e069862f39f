"""assert_resumable: what is right passes, and what is wrong is told with the moment, the rows and what helps."""

from __future__ import annotations

import re

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.db import IntegrityError, transaction
from django.db.models import F
from django.test import override_settings

from soc_tasks import FatalTaskError, Iteration, defer_iteration_with_finalize, startTask
from soc_tasks.testing import Resumability, TaskTestCase, TaskTransactionTestCase
from tests import site
from tests.site import behave_atomic, iterate, iterate_atomic, rows
from tests.specimen.models import Badge, Comment, Entry, Person, Profile, Row, Student, Tag
from tests.specimen.rows import make_entries

#: What a view keeps where no rollback reaches.
kept: dict = {"done": 0}


def read_hits():
    return list(Row.objects.order_by("pk").values_list("hits", flat=True))


def make_rows(number=3):
    Row.objects.bulk_create(Row() for _ in range(number))


def count_one(instance, step=1):
    Row.objects.filter(pk=instance.pk).update(hits=F("hits") + step)


def count_globally(instance, step=1):
    kept["done"] += step


def write_count(step=1):
    Tag.objects.create(name=f"counted {kept['done']}")


def write_tag(step=1):
    Tag.objects.create(name="the end")


def count_each(request, entities, **_):
    for row in entities:
        count_one(row)


def count_at_once(request, entities, **_):
    Row.objects.filter(pk__in=[row.pk for row in entities]).update(hits=F("hits") + 1)


def mark(request, entities, **_):
    for row in entities:
        Row.objects.filter(pk=row.pk).update(hits=1)


def send(message):
    # Django 6.1 has its own word for that.
    connection = mail.mailers["default"] if hasattr(mail, "mailers") else mail.get_connection()
    connection.send_messages([message])


def mail_each(request, entities, **_):
    for row in entities:
        send(EmailMessage("Hello", "You there", to=[f"{row.pk}@example.org"]))


def mail_by_key(request, entities, **_):
    for row in entities:
        key = f"<{request.task.iteration}:{row.pk}@example.org>"
        send(EmailMessage("Hello", "You", to=[f"{row.pk}@example.org"], headers={"Message-ID": key}))


class Common:
    """What holds with a transaction around the test and without."""

    databases = ("default", "other")

    def setUp(self):
        super().setUp()
        # Django 6.1 wants to be told.
        locmem = override_settings(MAILERS={"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}})
        self.enterContext(locmem)
        kept["done"] = 0

    def fails(self, *args, **kwargs):
        with pytest.raises(AssertionError) as caught:
            self.assert_resumable(*args, **kwargs)
        return str(caught.value)

    def test_an_iteration_that_is_not_atomic_counts_twice(self):
        make_rows()
        site.behaviours["iterate"] = count_each
        message = self.fails(rows)
        assert "rows does not end as it does undisturbed when it is interrupted after UPDATE" in message
        first = Row.objects.order_by("pk").first().pk
        assert f"specimen.Row {first}: hits is 2 instead of 1\n" in message
        assert "(moment 1 of 7)" in message
        assert "atomic=True (_atomic=True) has what a batch writes and its place commit together" in message
        assert message.endswith('send a key: f"{request.task.iteration}:{entity.pk}".')

    def test_rows_that_are_made_are_told_without_their_keys(self):
        make_entries(2)

        def log(request, entities, **_):
            for entry in entities:
                comment = Comment.objects.create(entry=entry, text="seen")
                student = Student.objects.create(name="Ada", year=2026)
                Profile.objects.create(person=student)
                comment.entry.tags.add(Tag.objects.create(name="new"))

        site.behaviours["iterate"] = log
        self.assert_resumable(iterate_atomic)
        message = self.fails(iterate)
        assert re.search(r"specimen.Comment \(entry=\d+, text='seen'\): there 2 time\(s\) instead of 1", message)

    def test_deferred_iterations_in_shards(self):
        make_rows(6)
        self.assert_resumable(Row.objects.all(), count_one, write_tag, step=2, _atomic=True, _shards=3)
        message = self.fails(Row.objects.all(), count_one, write_tag, step=2, _shards=3)
        assert "hits is 4 instead of 2" in message

    def test_a_plain_task(self):
        site.behaviours |= {name: lambda request, **_: write_tag() for name in ("behave", "behave_atomic")}
        assert self.assert_resumable(behave_atomic) == Resumability(1, 1)
        message = self.fails("behave")
        assert "@task(atomic=True)" in message
        assert "specimen.Tag (name='the end'): there 2 time(s) instead of 1" in message

    def test_all_is_as_before(self):
        make_rows()
        tag = Tag.objects.create(name="before")
        entry = make_entries(1)[0]
        entry.tags.add(tag)
        student = Student.objects.create(name="Ada", year=2026)
        startTask("behave", name="waiting")

        def spoil(request, entities, **_):
            Tag.objects.all().delete()
            Person.objects.update(name="nobody")
            Row.objects.update(hits=9)

        site.behaviours["iterate"] = spoil
        self.assert_resumable(rows)
        assert read_hits() == [0, 0, 0]
        assert list(entry.tags.all()) == [tag]
        assert Student.objects.get() == student
        assert Student.objects.get().name == "Ada"
        assert Iteration.all() == []
        self.assertNumTasksEquals(1)
        with pytest.raises(Exception, match="used before"):
            startTask("behave", name="waiting")
        # What is made afterwards does not meet what was there.
        assert Tag.objects.create(name="after").pk != tag.pk

    def test_nothing_is_left_of_one_that_fails(self):
        make_rows()
        site.behaviours["iterate"] = count_each
        self.fails(rows)
        assert read_hits() == [0, 0, 0]
        self.assertNumTasksEquals(0)

    def test_another_database(self):
        make_entries(2)

        def write(request, entities, **_):
            for entry in entities:
                Tag.objects.using("other").create(name=entry.code)

        site.behaviours["iterate"] = write
        message = self.fails(iterate_atomic)
        assert "specimen.Tag on other (name='code-0" in message
        assert "in another database" in message


class ResumableTests(Common, TaskTestCase):
    def test_what_may_be_done_again_is_right(self):
        make_rows()
        site.behaviours["iterate"] = mark
        # After each of three items and each of three writes, and before the end of the batch is written.
        assert self.assert_resumable(rows) == Resumability(7, 7)

    def test_one_that_writes_a_batch_at_once_counts_twice(self):
        make_rows()
        site.behaviours["iterate"] = count_at_once
        message = self.fails(rows)
        # After the items, of which nothing is written yet, comes the statement.
        assert "(moment 4 of 5)" in message
        assert message.count("hits is 2 instead of 1") == 3

    def test_an_atomic_one_is_right(self):
        make_entries(4)

        def count(request, entities, **_):
            for entry in entities:
                Tag.objects.create(name=f"for {entry.code}")
                Entry.objects.filter(pk=entry.pk).update(count=F("count") - 1)

        site.behaviours["iterate"] = count
        tried = self.assert_resumable(iterate_atomic)
        assert tried.interrupted == tried.moments == 4 * 3 + 1

    def test_a_global_shows_when_it_is_run_again(self):
        make_rows()
        message = self.fails(Row.objects.all(), count_globally, write_count, _atomic=True)
        assert "The iteration with count_globally ends differently when it is run again" in message
        assert "name='counted 6'" in message
        assert "Keep progress in the context, which commits with the place" in message

    def test_a_global_that_is_reset_shows_when_it_is_interrupted(self):
        make_rows()

        def start():
            kept["done"] = 0
            defer_iteration_with_finalize(Row.objects.all(), count_globally, write_count, _atomic=True)

        message = self.fails(start)
        assert "is interrupted after Row" in message
        assert "It is atomic, so this is kept where a rollback does not reach: in a global" in message

    def test_a_mail_without_a_key(self):
        make_rows(2)
        site.behaviours["iterate"] = mail_each
        message = self.fails(rows)
        assert re.search(
            r"mail \(to=\d+@example.org, subject=Hello, body=You there\): there 2 time\(s\) instead of 1", message
        )
        assert 'f"{request.task.iteration}:{entity.pk}" as its Message-ID' in message

    def test_a_mail_with_a_key(self):
        make_rows(2)
        send(EmailMessage("Before", "", to=["a@example.org"]))
        site.behaviours["iterate"] = mail_by_key
        self.assert_resumable(rows)
        assert [message.subject for message in mail.outbox] == ["Before"]

    def test_tasks_that_are_started_are_run(self):
        make_entries(3)
        site.behaviours["behave_atomic"] = lambda request, **_: write_tag()

        def start(request, entities, **_):
            for _entity in entities:
                startTask(behave_atomic)

        site.behaviours["iterate"] = start
        self.assert_resumable(iterate_atomic)
        assert "specimen.Tag (name='the end')" in self.fails(iterate)

    def test_a_delivery_that_comes_twice(self):
        """No moment shows it: nothing is written before the end."""
        seen = set()

        def count(request, **_):
            if request.task.name in seen:
                kept["done"] += 1
            seen.add(request.task.name)

        site.behaviours["behave"] = count
        message = self.fails("behave", read_state=lambda: kept["done"])
        assert "when it is with each delivery doubled:\n  read_state() returns 1 instead of 0" in message

    def test_an_order_that_matters(self):
        def last(request, **_):
            Badge.objects.update_or_create(name="last", defaults={"label": request.task.context["label"]})

        site.behaviours["behave_atomic"] = last

        def start():
            for label in "abc":
                startTask(behave_atomic, {"label": label})

        message = self.fails(start)
        assert "in random order, and late copies (seed " in message
        assert re.search(r"specimen.Badge last: label is '[ab]' instead of 'c'", message)

    def test_a_state_of_ones_own(self):
        make_rows()
        site.behaviours["iterate"] = count_each
        self.assert_resumable(rows, read_state=Row.objects.count)
        assert "read_state() returns [2, 1, 1] instead of [1, 1, 1]" in self.fails(rows, read_state=read_hits)

    def test_what_is_ignored(self):
        make_rows()
        site.behaviours["iterate"] = count_each
        self.assert_resumable(rows, ignore=["specimen.Row.hits"])
        self.assert_resumable(rows, ignore=["specimen.Row"])
        with pytest.raises(ValueError, match=r"ignore names specimen\.Row\.hitz, which is no model and no column"):
            self.assert_resumable(rows, ignore=["specimen.Row.hitz"])

    def test_of_many_moments_a_sample_is_tried(self):
        make_rows(20)
        site.behaviours["iterate"] = mark
        assert self.assert_resumable(rows, interruptions=5) == Resumability(42, 5)
        site.behaviours["iterate"] = count_each
        assert "of 42; 5 of them are tried, by seed 0)" in self.fails(rows, interruptions=5)
        with pytest.raises(ValueError, match="1 or more, not 0"):
            self.assert_resumable(rows, interruptions=0)

    def test_one_that_fails_undisturbed(self):
        make_rows()

        def fail(request, **_):
            raise FatalTaskError("no such thing")

        site.behaviours["iterate"] = fail
        message = self.fails(rows)
        assert message.startswith("rows fails where nothing disturbs it: task ")
        assert "no such thing" in message

    def test_one_that_cannot_go_on(self):
        make_rows()

        def insist(request, entities, **_):
            for row in entities:
                with transaction.atomic():
                    Badge.objects.create(name=str(row.pk))

        site.behaviours["iterate"] = insist
        with pytest.raises(AssertionError, match=r"failed 10 times: IntegrityError") as caught:
            self.assert_resumable(rows)
        assert isinstance(caught.value.__cause__, IntegrityError)

    def test_what_starts_nothing(self):
        with pytest.raises(TypeError, match="takes a task view, the name"):
            self.assert_resumable(3)

    def test_an_iteration_that_starts_again_ends(self):
        make_entries(2)
        site.behaviours["iterate"] = lambda request, entities, **_: None
        self.assert_resumable("iterate_again")


class ResumableTransactionTests(Common, TaskTransactionTestCase):
    def test_hooks_of_commits_run(self):
        make_entries(2)

        def mail_on_commit(request, entities, **_):
            for entry in entities:
                transaction.on_commit(lambda pk=entry.pk: Tag.objects.create(name=str(pk)))

        site.behaviours["iterate"] = mail_on_commit
        message = self.fails(iterate_atomic)
        assert "specimen.Tag (name=" in message


@pytest.mark.django_db
def test_the_fixture_has_it(task_queues):
    make_rows()
    site.behaviours["iterate"] = mark
    assert task_queues.assert_resumable("rows").interrupted == 7
