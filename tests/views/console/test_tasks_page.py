"""The pages of queues and tasks on the embedded engine."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from soc_tasks import startTask
from soc_tasks.backends import get_backend
from soc_tasks.engine.store import get_store
from soc_tasks.state.audit import list_entries
from tests.engine.tasks import judged
from tests.specimen import functions
from tests.views.console.users import messages_of, url

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture
def engine(settings):
    """Give the embedded backend with a few tasks."""
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "rate_per_second": 5, "rate_max_concurrent": 2}]
    backend = get_backend()
    startTask("behave", {"student": "Ada Lovelace", "password": "hunter2"}, name="first")
    startTask("behave_slug", {"n": 3}, "mail", url_kwargs={"slug": "second"}, name="second")
    startTask("behave", queue="mail", countdown=600, name="third")
    return backend


def names(response):
    return [row["task"].name for row in response.context["rows"]]


def test_queues_are_shown_with_what_waits_in_them(engine, operator):
    page = operator.get(url("queues"))
    found = {queue.name: queue for queue in page.context["queues"]}
    assert (found["mail"].due, found["mail"].scheduled, found["default"].due) == (1, 1, 1)
    assert "5/s" in page.content.decode()
    assert "2 at a time" in page.content.decode()


def test_a_queue_is_paused_and_resumed(engine, operator):
    page = operator.post(url("queue_steer", "mail"), {"verb": "pause"}, follow=True)
    assert messages_of(page) == ["The queue mail is paused; what runs already goes on."]
    assert {record.name: record.paused for record in engine.list_queues()}["mail"]
    operator.post(url("queue_steer", "mail"), {"verb": "resume"})
    assert not {record.name: record.paused for record in engine.list_queues()}["mail"]
    assert [(entry.user, entry.action, entry.target) for entry in list_entries()] == [
        ("operator", "resume queue", "mail"),
        ("operator", "pause queue", "mail"),
    ]
    assert operator.post(url("queue_steer", "mail"), {"verb": "explode"}).status_code == 404
    assert operator.post(url("queue_steer", "nowhere"), {"verb": "pause"}).status_code == 404


def test_a_purge_says_how_many_before_it_deletes_them(engine, operator):
    page = operator.get(url("queue_purge", "mail"))
    assert "<strong>2</strong> tasks of the queue <strong>mail</strong> will be deleted" in page.content.decode()
    assert len(engine.list_tasks("mail")) == 2
    page = operator.post(url("queue_purge", "mail"), follow=True)
    assert messages_of(page) == ["2 tasks were deleted from queue mail."]
    assert engine.list_tasks("mail") == []
    assert len(engine.list_tasks("default")) == 1
    [entry] = list_entries()
    assert (entry.action, entry.target, entry.outcome) == (
        "purge queue",
        "mail",
        "2 tasks were deleted from queue mail.",
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["first", "second", "third"]),
        ({"queue": "mail"}, ["second", "third"]),
        ({"state": "scheduled"}, ["third"]),
        ({"state": "due"}, ["first", "second"]),
        ({"state": "running"}, []),
        ({"url": "/SECOND/"}, ["second"]),
        ({"name": "first"}, ["first"]),
        ({"name": "ir"}, ["first", "third"]),
        ({"name": "third", "state": "due"}, []),
        ({"context": "ada lovelace"}, ["first"]),
        ({"context": "nobody"}, []),
        ({"after": "nonsense"}, []),
    ],
)
def test_tasks_are_found_by_what_they_are(engine, operator, query, found):
    page = operator.get(url("tasks"), query)
    assert page.status_code == 200
    assert sorted(names(page)) == found


def test_a_deferred_function_is_found_by_its_name(engine, operator):
    from soc_tasks import defer

    handle = defer(functions.note, 1)
    assert names(operator.get(url("tasks"), {"url": "functions.note"})) == [handle.name]


def test_pages_follow_each_other_without_a_gap_or_a_repeat(settings, operator, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.console.tasks.PAGE_SIZE", 7)
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}]
    eta = timezone.now() + timedelta(minutes=1)
    for number in range(20):
        # Many are due at the same moment.
        startTask("behave", queue=("default", "mail")[number % 2], name=f"n{number}", eta=eta)
    query, seen, pages = "", [], 0
    while query is not None:
        page = operator.get(url("tasks") + query)
        seen += names(page)
        pages += 1
        query = page.context["next"] or None
    assert sorted(seen) == sorted(f"n{number}" for number in range(20))
    assert pages == 3


def test_a_search_that_would_take_long_goes_on_on_the_next_page(operator, monkeypatch):
    monkeypatch.setattr("soc_tasks.backends.embedded_inspection.LOOK_AT", 10)
    # The newest are looked at first.
    startTask("behave_slug", url_kwargs={"slug": "needle"}, name="there")
    for number in range(25):
        startTask("behave", name=f"n{number}")
    page = operator.get(url("tasks"), {"url": "needle"})
    assert names(page) == []
    assert page.context["page"].looked_at == 10
    seen = []
    while page.context["next"]:
        page = operator.get(url("tasks") + page.context["next"])
        seen += names(page)
    assert seen == ["there"]


def test_a_task_is_shown_with_its_context_but_not_its_secrets(engine, operator):
    text = operator.get(url("task", "default", "first")).content.decode()
    assert "Ada Lovelace" in text
    assert "hunter2" not in text
    assert "curl -X POST http://testserver/tasks/behave/" in text
    assert "X-SocTasks-Meta" in text
    assert operator.get(url("task", "default", "nothing")).status_code == 404


def test_the_last_error_of_a_task_that_is_tried_again_is_shown_to_who_may_see_it(operator, viewer):
    startTask("behave", name="fails")
    store = get_store("default")
    worker = store.join("here", 1, 1)
    (leased,) = store.exchange(worker, [], 1)
    store.exchange(worker, [judged(store.clock, leased, note="ValueError: <b>no such student</b>")], 0)
    assert get_backend().get_task("default", "fails").error == "ValueError: <b>no such student</b>"
    assert "ValueError: &lt;b&gt;no such student" in operator.get(url("task", "default", "fails")).content.decode()
    assert "no such student" not in viewer.get(url("task", "default", "fails")).content.decode()


def test_a_task_is_run_now_run_again_and_deleted(engine, operator):
    page = operator.post(url("task_act", "mail", "third"), {"verb": "run"}, follow=True)
    assert messages_of(page) == ["The task third is due now."]
    assert engine.get_task("mail", "third").due <= timezone.now()
    operator.post(url("task_act", "mail", "second"), {"verb": "rerun"})
    copies = [record for record in engine.list_tasks("mail") if record.task.path.endswith("/second/")]
    assert len(copies) == 2
    assert len({record.task.start_id for record in copies}) == 2
    assert copies[0].task.path == copies[1].task.path
    page = operator.post(url("task_act", "mail", "second"), {"verb": "delete"}, follow=True)
    assert messages_of(page)[-1] == "The task second was deleted from queue mail."
    assert engine.get_task("mail", "second") is None
    assert operator.post(url("task_act", "mail", "second"), {"verb": "delete"}).status_code == 404
    assert [entry.action for entry in list_entries()] == ["delete task", "run task again", "run task now"]


def test_what_somebody_was_refused_is_noted_too(engine, operator, monkeypatch):
    monkeypatch.setattr(type(engine), "run_now", lambda *_: False)
    page = operator.post(url("task_act", "mail", "third"), {"verb": "run"}, follow=True)
    assert messages_of(page) == ["The task third runs already, or has ended."]
    [entry] = list_entries()
    assert entry.outcome == "refused: The task third runs already, or has ended."


def test_a_log_that_cannot_be_written_undoes_the_action(engine, operator, monkeypatch):
    def broken(*_):
        raise RuntimeError("no log")

    monkeypatch.setattr("soc_tasks.views.console.actions.begin_entry", broken)
    with pytest.raises(RuntimeError):
        operator.post(url("task_act", "mail", "third"), {"verb": "delete"})
    assert engine.get_task("mail", "third") is not None


def test_the_memory_backend_says_what_it_is(memory_backend, operator):
    startTask("behave", name="there")
    for page in ("queues", "tasks"):
        assert "waits in a list of this process" in operator.get(url(page)).content.decode()
    assert names(operator.get(url("tasks"), {"name": "the"})) == ["there"]
    page = operator.post(url("task_act", "default", "there"), {"verb": "run"}, follow=True)
    assert "cannot run a task at once" in messages_of(page)[0]
    operator.post(url("task_act", "default", "there"), {"verb": "delete"})
    assert memory_backend.tasks_now() == []
