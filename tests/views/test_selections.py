"""The admin's action that runs a task over a selection: what runs, who may, and that nothing comes from the client."""

from __future__ import annotations

import re
from datetime import date, time, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from soc_tasks import Iteration, ModelLogic, PayloadError
from soc_tasks.logic import selections
from soc_tasks.logic.dry_runs import DryRun, Limits
from soc_tasks.logic.selections import start_over_selection
from soc_tasks.models import PayloadRow
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError
from tests import site
from tests.specimen.models import Entry, Row, Tag

pytestmark = pytest.mark.django_db(databases=["default", "other"])

URL = "/admin/specimen/entry/"
ANY = "run_over_selection"


@pytest.fixture
def entries():
    entries = Entry.objects.bulk_create(
        Entry(
            code=f"e{i:03}", title="", count=i % 3, day=date(2026, 1 + i % 2, 1), slot=time(1), span=timedelta(1),
            flag=bool(i % 2),
        )
        for i in range(30)
    )  # fmt: skip
    entries = list(Entry.objects.order_by("pk"))
    tags = [Tag.objects.create(name="red"), Tag.objects.create(name="reddish")]
    for entry in entries[:7]:
        entry.tags.set(tags)
    return entries


@pytest.fixture
def seen():
    ids = []
    site.behaviours["iterate"] = lambda request, entities, **_: ids.extend(entity.pk for entity in entities)
    return ids


@pytest.fixture
def admin_user():
    return User.objects.create_superuser("root", "root@example.org", "secret")


@pytest.fixture
def browser(admin_user):
    return log_in(admin_user)


def log_in(user, **options):
    client = Client(**options)
    client.force_login(user)
    return client


def clerk(*codenames):
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def ask(browser, selected, *, action=ANY, query="", across=False):
    data = {"action": action, "index": "0", "_selected_action": selected, "select_across": str(int(across))}
    return browser.post(URL + query, data)


def confirm(browser, page, query="", **changes):
    """Send the page's own form, with changes."""
    text = page.content.decode()
    form = text[text.index('<form method="post">') :]
    data = {}
    for tag in re.findall(r"<input[^>]*>", form):
        found = dict(re.findall(r'(name|value|type)="([^"]*)"', tag))
        if "name" in found and found["type"] != "submit":
            data.setdefault(found["name"], []).append(found.get("value", ""))
    for name in re.findall(r'<(?:select|textarea)[^>]* name="([^"]*)"|name="([^"]*)"[^>]*<option', form):
        data.setdefault(name[0], ["0" if name[0] == "run-task" else "{}"])
    data.update({key.replace("__", "-"): value for key, value in changes.items()})
    return browser.post(URL + query, data, follow=True)


def choose(page, label):
    return re.search(rf'<option value="(\d+)"[^>]*>{label}</option>', page.content.decode())[1]


def pks(entries):
    return [entry.pk for entry in entries]


def test_the_selected_rows_of_a_page(browser, entries, seen, task_queues):
    chosen = pks(entries[3:6])
    page = ask(browser, chosen)
    assert page.status_code == 200
    assert "<strong>3 entrys</strong>" in page.content.decode()
    assert seen == []
    task_queues.assertNumTasksEquals(0)
    done = confirm(browser, page, run__task=choose(page, "Iterate"))
    assert "Iterate runs over 3 entrys" in done.content.decode()
    # What was selected stays so, whatever becomes of the rows.
    Entry.objects.filter(pk=chosen[0]).update(count=99)
    task_queues.process_task_queues()
    assert seen == chosen
    (iteration,) = Iteration.all()
    assert (iteration.status, iteration.total, iteration.done) == ("succeeded", 3, 3)
    assert not PayloadRow.objects.exclude(data=b"").exists()
    entry = LogEntry.objects.get()
    assert iteration.id in entry.get_change_message()
    assert (entry.user.username, entry.object_repr) == ("root", "3 entrys")


@pytest.mark.parametrize(
    ("query", "keep"),
    [
        ("", lambda number: True),
        ("?flag__exact=1", lambda number: number % 2 == 1),
        ("?count=2", lambda number: number % 3 == 2),
        ("?q=e01", lambda number: 10 <= number < 20),
        ("?q=red", lambda number: number < 7),
        ("?day__year=2026&day__month=2", lambda number: number % 2 == 1),
        ("?q=red&flag__exact=0&o=-2", lambda number: number < 7 and number % 2 == 0),
    ],
)
def test_all_across_pages_as_the_list_is_filtered(query, keep, browser, entries, seen, task_queues):
    wanted = [entry.pk for number, entry in enumerate(entries) if keep(number)]
    page = ask(browser, wanted[:1], query=query, across=True)
    assert f"<strong>{len(wanted)} entrys</strong>" in page.content.decode()
    assert "Success" not in page.content.decode()
    confirm(browser, page, query, run__task=choose(page, "Iterate"), run__shards="3")
    task_queues.process_task_queues()
    assert sorted(seen) == wanted
    (iteration,) = Iteration.all()
    assert iteration.total == len(wanted)
    assert 1 <= len(iteration.shards) <= 3


def test_a_selection_of_many_rows_is_read_in_parts(browser, entries, seen, task_queues, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.slicing.FEW_ROWS", 5)
    page = ask(browser, [entries[0].pk], query="?q=red", across=True)
    confirm(browser, page, "?q=red", run__task=choose(page, "Iterate slowly"))
    task_queues.process_task_queues()
    assert seen == pks(entries[:7])


def test_the_selection_is_within_what_the_task_goes_over(entries, seen, task_queues):
    start_over_selection("iterate", Entry.objects.filter(count=1), {"filter": {"flag": True}})
    task_queues.process_task_queues()
    assert seen == [entry.pk for entry in entries if entry.count == 1 and entry.flag]


def test_a_task_without_a_logic_goes_over_the_selection(entries, seen, task_queues):
    start_over_selection("early", Entry.objects.filter(count=1))
    task_queues.process_task_queues()
    assert seen == [entry.pk for entry in entries if entry.count == 1]


def test_a_selection_does_not_repeat(entries, seen, task_queues):
    start_over_selection("iterate_again", Entry.objects.filter(count=1))
    task_queues.process_task_queues()
    task_queues.assertNumTasksEquals(0)
    assert len(seen) == 10


def test_an_empty_selection_succeeds(entries, seen, task_queues):
    handle = start_over_selection("iterate", Entry.objects.none())
    task_queues.process_task_queues()
    assert seen == []
    assert Iteration.get(handle.iteration).status == "succeeded"


def test_a_failure_is_gone_on_from(entries, seen, task_queues):
    handle = start_over_selection("iterate", Entry.objects.filter(flag=True))
    note = site.behaviours["iterate"]

    def fail_once(request, entities, **more):
        if len(site.calls) == 2:
            raise ZeroDivisionError
        note(request, entities, **more)

    site.behaviours["iterate"] = fail_once
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
    assert sorted(seen) == [entry.pk for entry in entries if entry.flag]
    assert Iteration.get(handle.iteration).done == 15


def test_a_dry_run_keeps_to_the_selection(entries, seen, task_queues):
    handle = start_over_selection("iterate", Entry.objects.filter(flag=True))

    def pause(request, entities, **_):
        Iteration.get(handle.iteration).pause()

    site.behaviours["iterate"] = pause
    task_queues.process_task_queues()
    site.behaviours["iterate"] = lambda request, entities, **_: seen.extend(entity.pk for entity in entities)
    report = DryRun(Limits()).try_iteration(handle.iteration)
    assert (report.done_before, report.rows, report.total) == (10, 5, 15)
    assert seen == [entry.pk for entry in entries if entry.flag][10:]
    Iteration.get(handle.iteration).resume()
    task_queues.process_task_queues()
    assert seen[5:] == seen[:5]


@pytest.mark.parametrize(
    ("url", "rows", "message"),
    [
        ("iterate", Row.objects.all, "of specimen.Row, and the entities are of specimen.Entry"),
        ("iterate", lambda: Entry.objects.using("other"), "on 'other'"),
        ("iterate", lambda: Entry.objects.all()[:3], "cannot be sliced"),
        ("iterate", lambda: Entry.objects.all().union(Entry.objects.all()), "cannot be combined"),
        ("behave", Entry.objects.all, "is no iterative task"),
        ("tasks_deferred_iteration_handler", Entry.objects.all, "is no iterative task"),
        ("nowhere", Entry.objects.all, "neither a path"),
    ],
)
def test_what_cannot_be_run_over_is_refused(url, rows, message, task_queues):
    with pytest.raises(ValueError, match=message):
        start_over_selection(url, rows())
    task_queues.assertNumTasksEquals(0)
    assert not PayloadRow.objects.exists()


def test_a_selection_that_somebody_else_wrote_is_not_followed(entries, seen, task_queues, monkeypatch):
    monkeypatch.setattr(selections.calls, "sign", lambda text: "0" * 64)
    start_over_selection("iterate", Entry.objects.all())
    monkeypatch.undo()
    with pytest.raises(TaskFailedError, match="signature of this selection is not ours"):
        task_queues.process_task_queues()
    assert seen == []


def test_a_form_of_its_own_makes_the_context(browser, entries, task_queues):
    page = ask(browser, pks(entries[:2]), action="with_form")
    page = confirm(browser, page, context__word="ab", context__number="7")
    assert "at least 3 characters" in page.content.decode()
    task_queues.assertNumTasksEquals(0)
    confirm(browser, page, context__word="abc", context__number="7")
    task_queues.process_task_queues()
    (_, request, kwargs), *_ = site.calls
    assert kwargs["context"] == {"word": "abc", "number": 7}
    assert request.path == "/tasks/iterate/spring/"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run__context": "{"}, "This is no typed JSON"),
        ({"run__context": "[1]"}, "The context is an object"),
        ({"run__shards": "0"}, "greater than or equal to 1"),
        ({"run__task": "99"}, "not one of the available choices"),
        ({"run__context": '{"filter": {"program__name": 1}}'}, "is not allowed in a posted filter"),
    ],
)
def test_bad_input_is_told_on_the_page(changes, message, browser, entries, task_queues):
    page = confirm(browser, ask(browser, pks(entries[:2])), **changes)
    assert message in page.content.decode()
    task_queues.assertNumTasksEquals(0)
    assert not LogEntry.objects.exists()


def test_a_task_of_another_model_is_told_on_the_page(browser, entries, task_queues):
    page = confirm(browser, ask(browser, pks(entries[:2]), action="of_another_model"))
    assert "the entities are of specimen.Row" in page.content.decode()
    page = confirm(browser, ask(browser, pks(entries[:2]), action="of_no_model"))
    task_queues.assertNumTasksEquals(1)


def test_tasks_of_the_model_are_offered_where_their_url_takes_no_arguments(browser, entries):
    text = ask(browser, pks(entries[:1])).content.decode()
    offered = re.findall(r"<option[^>]*>([^<]*)</option>", text)
    assert {"Iterate", "Iterate atomic", "Iterate slowly"} <= set(offered)
    assert not {"Rows", "Early", "Iterating", "Deferred iteration"} & set(offered)


def test_who_may(entries, seen, task_queues):
    chosen = pks(entries[:2])
    viewer = log_in(clerk("view_entry", "run_over_selection"))
    ask(viewer, chosen)
    page = viewer.get(URL).content.decode()
    assert "over_selection" not in page
    User.objects.all().delete()
    # To change the rows is not enough ...
    editor = log_in(clerk("view_entry", "change_entry"))
    assert ANY not in editor.get(URL).content.decode()
    assert ask(editor, chosen, action="with_form").status_code == 403
    User.objects.all().delete()
    # ... the permission is needed, too.
    runner = log_in(clerk("view_entry", "change_entry", "run_over_selection"))
    page = ask(runner, chosen)
    confirm(runner, page, run__task=choose(page, "Iterate"))
    task_queues.process_task_queues()
    assert seen == chosen


def test_the_access_of_the_task_will_do(entries, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.selections.PERMISSION", "soc_tasks.nobody_has_it")
    root = User.objects.create_user("boss", is_staff=True)
    root.user_permissions.set(Permission.objects.filter(codename__in=["view_entry", "change_entry"]))
    browser = log_in(root)
    assert ask(browser, pks(entries[:1]), action="slowly").status_code == 403
    monkeypatch.setattr("soc_tasks.views.access.superuser._test", lambda request: request.user.username == "boss")
    assert ask(browser, pks(entries[:1]), action="slowly").status_code == 200


def test_without_a_token_nothing_starts(admin_user, entries, task_queues):
    browser = log_in(admin_user, enforce_csrf_checks=True)
    assert ask(browser, pks(entries[:1])).status_code == 403
    data = {"action": ANY, "_selected_action": [entries[0].pk], "post": "yes", "run-task": "0"}
    assert browser.post(URL, data).status_code == 403
    task_queues.assertNumTasksEquals(0)


def test_start_and_log_are_one(browser, entries, task_queues, monkeypatch):
    page = ask(browser, pks(entries[:1]))

    def fail(*args, **kwargs):
        raise PayloadError("no room in the log")

    monkeypatch.setattr("soc_tasks.views.selections.ContentType.objects.get_for_model", fail)
    assert "no room in the log" in confirm(browser, page).content.decode()
    task_queues.assertNumTasksEquals(0)
    assert not PayloadRow.objects.exists()


def test_a_logic_within_a_selection_counts_and_reads_the_same_either_way(entries):
    chosen = Entry.objects.filter(tags__name__startswith="red")
    for paged in (True, False):
        logic = ModelLogic(Entry.objects.filter(flag=True)).within(chosen, paged=paged)
        assert logic.count() == 3
        assert pks(logic.getBatchOfData()[0]) == pks(entries[1:7:2])
