"""`tasks iterations --dry-run`: what it tells, and that nothing of it stays."""

from __future__ import annotations

import json
import re
from datetime import date, time, timedelta
from io import StringIO

import django
import pytest
from django.apps import apps
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.http import HttpResponse

from soc_tasks import FatalTaskError, Iteration, defer, defer_iteration_with_finalize, startTask
from soc_tasks.logic.dry_runs import DryRun, Limits
from soc_tasks.logic.held_back import mails_held_back
from soc_tasks.values import Delivery
from tests import site
from tests.specimen import functions, iterating
from tests.specimen.models import Entry, Row, Tag

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture(autouse=True)
def entries():
    return Entry.objects.bulk_create(
        Entry(code=f"e{i:03}", title="", count=i, day=date(2026, 1, 1), slot=time(1), span=timedelta(1), flag=False)
        for i in range(35)
    )


@pytest.fixture
def mailer(settings):
    """Have mail set up as this release of Django wants it."""
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}


@pytest.fixture(autouse=True)
def _forget():
    iterating.visits.clear()
    iterating.ends.clear()
    iterating.acts.clear()


def read_all():
    """Every row of every table."""
    found = {}
    for alias in connections:
        for model in apps.get_models(include_auto_created=True):
            if not model._meta.managed:
                continue
            with connections[alias].cursor() as cursor:
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(model._meta.db_table)}")
                found[alias, model._meta.db_table] = sorted(map(repr, cursor.fetchall()))
    return found


@pytest.fixture
def unchanged():
    """All tables are in the end as they were in the beginning."""
    before = read_all()
    yield
    assert read_all() == before


def dry_run(target, *arguments, **options):
    out = StringIO()
    call_command("tasks", "iterations", "--dry-run", target, "--yes", *arguments, stdout=out, **options)
    return out.getvalue()


def report(target, *arguments):
    return json.loads(dry_run(target, "--json", *arguments))


def write(request, entities, **_):
    """Write in many ways."""
    for entity in entities:
        Tag.objects.create(name=entity.code)
        Entry.objects.filter(pk=entity.pk).update(count=0)
    Row.objects.using("other").bulk_create([Row(), Row()])
    Entry.objects.filter(pk=entities[0].pk).delete()


@pytest.mark.parametrize("name", ["iterate", "iterate_atomic"])
def test_nothing_is_written_and_all_is_told(name, unchanged):
    site.behaviours["iterate"] = write
    told = report(name, "--all")
    assert (told["rows"], told["batches"], told["total"], told["stopped_at"]) == (35, 4, 35, None)
    assert told["atomic"] is (name == "iterate_atomic")
    writes = {(w["database"], w["verb"], w["table"]): (w["rows"], w["statements"]) for w in told["writes"]}
    assert writes["default", "INSERT", "specimen_tag"] == (35, 35)
    assert writes["default", "UPDATE", "specimen_entry"] == (35, 35)
    assert writes["default", "DELETE", "specimen_entry"] == (4, 4)
    assert writes["other", "INSERT", "specimen_row"] == (8, 4)
    assert {key for key in writes if key[2].startswith("soc_tasks")} == set()
    assert told["queries"]["to_fetch"] >= 4
    assert told["queries"]["most_in_a_batch"] * 4 >= told["queries"]["total"] > 74
    assert told["seconds"] > 0
    assert told["projected"]["rows"] == 35


def test_batches_are_those_of_the_real_run(task_queues):
    seen = []
    site.behaviours["iterate"] = lambda request, entities, context: seen.append([entity.pk for entity in entities])
    dry_run("iterate", "--all")
    tried, seen[:] = list(seen), []
    startTask("iterate")
    task_queues.process_task_queues()
    assert tried == seen
    assert len(tried) == 4


def test_a_sample_tells_of_the_whole():
    told = report("iterate", "--limit", "15")
    assert (told["rows"], told["batches"], told["stopped_at"]) == (20, 2, "15 rows")
    assert told["projected"]["rows"] == 35
    assert told["projected"]["seconds"] == pytest.approx(told["seconds"] * 35 / 20, abs=0.01)
    assert report("iterate", "--batches", "1")["rows"] == 10
    assert report("iterate", "--seconds", "1e-9")["batches"] == 1


def test_what_the_view_is_handed_is_what_it_would_be_handed(unchanged):
    def look(request, entities, context):
        assert request.resolver_match.kwargs == {"slug": "spring"}
        assert request.POST["word"] == "hello"
        assert request.task.context == context
        assert request.task.queue == "default"
        assert (request.task.shard, request.task.step) == (0, 0)
        assert Iteration.get(request.task.iteration).total == 35
        assert context["seen"] == len(site.calls) - 1
        context["seen"] += 1

    site.behaviours["iterate"] = look
    dry_run("/tasks/iterate/spring/", "--all", "--context", '{"word": "hello", "seen": 0}')
    assert len(site.calls) == 4


def test_mails_tasks_and_hooks_are_held_back(mailer, task_queues, unchanged):
    def act(request, entities, context):
        for entity in entities:
            mail.send_mail("Hello", "…", "a@example.org", [f"{entity.pk}@example.org", "b@example.org"])
        startTask("behave")
        defer(functions.two, 1, second=2)
        with transaction.atomic():
            transaction.on_commit(functions.note)
        try:
            with transaction.atomic():
                startTask("behave_atomic")
                transaction.on_commit(site.calls.clear)
                raise KeyError
        except KeyError:
            pass

    site.behaviours["iterate"] = act
    told = report("iterate", "--all")
    assert told["mails"] == {"total": 35, "recipients": 70, "subjects": {"Hello": 35}}
    assert told["tasks"] == [
        {"calls": "/tasks/behave/", "queue": "default", "count": 4},
        {"calls": "tests.specimen.functions.two", "queue": "default", "count": 4},
    ]
    assert told["on_commit"] == {"tests.specimen.functions.note": 4}
    assert mail.outbox == []
    task_queues.assertNumTasksEquals(0)


def test_durable_blocks_are_what_they_are(unchanged):
    def act(request, entities, context):
        with transaction.atomic(durable=True):
            Tag.objects.create(name="x")

    site.behaviours["iterate"] = act
    assert report("iterate")["batches"] == 4
    with pytest.raises(CommandError, match="durable"):
        report("iterate_atomic")


def test_an_error_of_the_view_ends_it(unchanged):
    def fail(request, entities, context):
        Tag.objects.create(name="x")
        if len(site.calls) == 2:
            raise FatalTaskError("no such luck")

    site.behaviours["iterate"] = fail
    out = StringIO()
    with pytest.raises(CommandError, match=r"batch 2: FatalTaskError: no such luck") as caught:
        call_command("tasks", "iterations", "--dry-run", "iterate", "--yes", "--limit", "30", stdout=out)
    assert caught.value.returncode == 1
    first, last = Entry.objects.order_by("pk")[10], Entry.objects.order_by("pk")[19]
    assert f"a batch of 10, from specimen.Entry {first.pk} to specimen.Entry {last.pk}" in out.getvalue()
    assert "10 of 35" in out.getvalue()


def test_an_answer_that_is_not_good_ends_it(unchanged):
    site.behaviours["iterate"] = lambda *args, **kwargs: HttpResponse(status=500)
    with pytest.raises(CommandError, match="the view answered with 500"):
        dry_run("iterate")


@pytest.mark.parametrize("how", ["autocommit", "commit", "sql"])
def test_a_view_that_wants_transactions_of_its_own_is_told_so(how, unchanged):
    def act(request, entities, context):
        Tag.objects.create(name="x")
        if how == "autocommit":
            transaction.set_autocommit(False)
        elif how == "commit":
            transaction.commit()
        else:
            with connection.cursor() as cursor:
                cursor.execute("COMMIT")

    site.behaviours["iterate"] = act
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("tasks", "iterations", "--dry-run", "iterate", "--yes", stdout=out)
    assert "cannot be tried dry" in out.getvalue()


def test_what_ended_the_transaction_all_the_same_is_told():
    def act(request, entities, context):
        Tag.objects.create(name="x")
        connection.connection.commit()

    site.behaviours["iterate"] = act
    with pytest.raises(CommandError, match=r"could not be rolled back.*IS WRITTEN"):
        dry_run("iterate")
    assert Tag.objects.count() == 1


def test_changes_of_the_schema_do_not_get_through(unchanged):
    def act(request, entities, context):
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE a_new_one (a int)")

    site.behaviours["iterate"] = act
    if connection.features.can_rollback_ddl:
        assert report("iterate", "--batches", "1")["writes"][0]["table"] == "a_new_one"
    else:
        with pytest.raises(CommandError, match="CREATE TABLE would end the transaction"):
            dry_run("iterate")
    assert "a_new_one" not in connection.introspection.table_names()


def test_a_deferred_iteration_is_tried_from_where_it_stands(task_queues):
    handle = defer_iteration_with_finalize(
        Entry.objects.filter(count__gte=5), iterating.callback, iterating.finalize, word=7, _shards=2, _batch_size=4
    )
    iterating.acts["callback"] = lambda instance: Iteration.get(handle.iteration).pause()
    task_queues.process_task_queues()
    done = len(iterating.visits)
    iterating.visits.clear()
    iterating.acts["callback"] = lambda instance: Tag.objects.create(name=str(instance.pk))
    before = read_all()
    told = report(handle.iteration[-8:])
    assert read_all() == before
    assert (told["total"], told["done_before"], told["rows"]) == (30, done, 30 - done)
    assert told["finalize"] == "tests.specimen.iterating.finalize"
    assert len({key for key, *_ in iterating.visits}) == 30 - done
    assert [kwargs for *_, kwargs in iterating.visits] == [{"word": 7}] * (30 - done)
    assert iterating.ends == []
    iterating.acts.clear()
    Iteration.get(handle.iteration).resume()
    task_queues.process_task_queues()
    assert Iteration.get(handle.iteration).status == "succeeded"
    with pytest.raises(CommandError, match="is succeeded and has no rows left"):
        dry_run(handle.iteration)


def test_the_instance_that_a_callback_fails_on_is_named(task_queues):
    handle = defer_iteration_with_finalize(Entry.objects.all(), iterating.callback, iterating.finalize, _shards=1)
    iterating.acts["callback"] = lambda instance: 1 / 0
    task_queues.process_task_queues(failure_behaviour=0)

    def fail(instance):
        if instance.count == 3:
            raise ValueError("not three")

    iterating.acts["callback"] = fail
    out = StringIO()
    with pytest.raises(CommandError, match="ValueError: not three"):
        call_command("tasks", "iterations", "--dry-run", handle.iteration, "--yes", stdout=out)
    assert f"specimen.Entry {Entry.objects.get(count=3).pk}, batch 1" in out.getvalue()
    assert "3 of 35" in out.getvalue()


def test_shards_are_tried_in_turn():
    told = report("rows_in_shards", "--all")
    assert (told["rows"], told["shards"]) == (0, 1)
    Row.objects.bulk_create(Row() for _ in range(40))
    out = dry_run("rows_in_shards", "--batches", "4")
    pks = [kwargs["entities"][0].pk for _, _, kwargs in site.calls]
    first = Row.objects.order_by("pk").first().pk
    assert pks == [first + 10 * number for number in range(4)]
    assert "in 4 shards side by side" in out


def test_the_output_is_for_people(unchanged):
    site.behaviours["iterate"] = write
    out = dry_run("iterate", "--limit", "10")
    assert "Dry run of tests.site.iterate (/tasks/iterate/)" in out
    assert "Not held back: what the view does outside" in out
    assert "rows        10 of 35\n" in out
    assert "ended by the limit of 10 rows" in out
    assert re.search(r"^ +default +INSERT +specimen_tag +10 rows in 10 statements$", out, re.MULTILINE)
    assert "mails       none\n" in out


def test_nobody_is_told_and_nothing_is_logged(unchanged, caplog):
    def fail(*args, **kwargs):
        raise ValueError

    site.behaviours["iterate"] = fail
    with pytest.raises(CommandError):
        dry_run("iterate")
    assert caplog.records == []


def test_without_a_yes_nothing_is_tried():
    with pytest.raises(CommandError, match="--yes"):
        call_command("tasks", "iterations", "--dry-run", "iterate", stderr=StringIO())
    assert site.calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "neither a path of this site"),
        (["/ordinary/"], "leads to a view that is no task"),
        (["behave"], "is a plain task"),
        (["tasks_deferred_iteration_handler"], "tried by its id"),
        (["0" * 32], "There is no iteration"),
        (["iterate", "--context", "{"], "--context is no JSON"),
        (["iterate", "--context", "[]"], "must be an object"),
        (["iterate", "--limit", "0"], "--limit must be above 0"),
        (["iterate", "--all", "--limit", "5"], "leave --limit"),
        (["iterate", "--queue", "nowhere"], "There is no queue 'nowhere'"),
        (["iterate", "--context", '{"filter": {"program__name": 1}}'], "is not allowed in a posted filter"),
        (["iterate", "--context", '{"order": "nothing"}'], "nothing"),
    ],
)
def test_what_cannot_be_tried_is_refused(arguments, message, unchanged):
    with pytest.raises(CommandError, match=message):
        dry_run(*arguments)
    assert site.calls == []


def test_an_action_does_not_go_with_it():
    with pytest.raises(CommandError, match="no action beside it"):
        call_command("tasks", "iterations", "pause", "--dry-run", "iterate", "--yes")


def test_the_end_of_a_request_does_not_end_the_transactions(monkeypatch):
    """It closes connections otherwise, of any database but one in memory."""
    closed = []
    for each in connections.all():
        monkeypatch.setattr(each, "close", lambda alias=each.alias: closed.append(alias))
    dry_run("iterate", "--all")
    assert closed == []


def test_progress_is_told_after_each_batch():
    seen = []
    DryRun(Limits(), progress=lambda report: seen.append((report.rows, report.batches))).try_task("iterate")
    assert seen == [(10, 1), (20, 2), (30, 3), (35, 4)]


def test_what_was_in_place_before_is_in_place_again(mailer):
    before = mail.outbox
    with mails_held_back() as held:
        mail.send_mail("a", "b", "c@example.org", ["d@example.org"])
        assert len(held) == 1
    assert mail.outbox is before
    assert before == []


def test_a_real_delivery_rehearses_nothing():
    assert Delivery(queue="default", name="x").rehearsal is None
