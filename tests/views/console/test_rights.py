"""Who may see, who may steer, and that nothing happens otherwise."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.test import Client

from soc_tasks import FatalTaskError, startTask
from soc_tasks.state import get_state
from soc_tasks.state.audit import list_entries
from soc_tasks.testing import TaskFailedBehaviour
from tests import site
from tests.views.console.users import ALL, log_in, url

pytestmark = pytest.mark.django_db(databases=["default", "other"])

SCRIPT = "<script>alert(1)</script>"
PAGES = ("changelist", "queues", "tasks", "iterations", "failures", "audit")


@pytest.fixture
def letter(task_queues):
    """Give a dead letter that is full of what must not run in a browser."""

    def fail(request, **_):
        raise FatalTaskError(SCRIPT)

    site.behaviours["behave"] = fail
    startTask("behave", {SCRIPT: SCRIPT}, headers={"X-Note": SCRIPT})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    return get_state().list_dead_letters()[0]


def actions(letter):
    """Every URL that changes something, with what would be posted."""
    return [
        (url("queue_steer", "default"), {"verb": "pause"}),
        (url("queue_purge", "default"), {}),
        (url("task_act", "default", "waits"), {"verb": "delete"}),
        (url("iteration_steer", "0" * 32), {"verb": "pause"}),
        (url("iteration_retry", "0" * 32), {"all": "1"}),
        (url("failure_act", letter.id), {"verb": "discard"}),
        (url("failures_selected"), {"verb": "discard", "letter": letter.id}),
        (url("failures_all"), {"verb": "discard", "up_to": letter.id}),
        (url("start_task"), {"route": "/tasks/behave/", "context": "{}", "queue": "default", "what": "start"}),
    ]


def test_who_only_looks_is_refused_each_action(letter, viewer):
    for address, data in actions(letter):
        assert viewer.post(address, data).status_code == 403
    assert get_state().get_dead_letter(letter.id) is not None
    noted = [(entry.user, entry.target, entry.outcome) for entry in reversed(list_entries())]
    assert noted == [("viewer", address, "refused: no permission") for address, _ in actions(letter)]
    for page in PAGES:
        assert viewer.get(url(page)).status_code == 200
    for form in (url("queue_purge", "default"), url("failures_all") + "?verb=retry", url("start")):
        assert viewer.get(form).status_code == 403


def test_who_may_not_look_sees_nothing_and_does_nothing(letter):
    stranger = log_in("operate", "start", "view_payloads", name="stranger")
    for page in PAGES:
        assert stranger.get(url(page)).status_code == 403
    for address, data in actions(letter):
        assert stranger.post(address, data).status_code == 403
    assert "soc_tasks/console" not in stranger.get("/admin/").content.decode()
    outsider = Client()
    for page in PAGES:
        assert outsider.get(url(page)).headers["Location"].startswith("/admin/login/")
    assert get_state().get_dead_letter(letter.id) is not None


def test_actions_need_a_token_and_are_no_links(letter):
    careful = log_in(*ALL, enforce_csrf_checks=True)
    for address, data in actions(letter):
        assert careful.post(address, data).status_code == 403
    for address, _ in actions(letter):
        if address not in (url("queue_purge", "default"), url("failures_all"), url("start_task")):
            assert careful.get(address).status_code == 405
    assert get_state().get_dead_letter(letter.id) is not None
    assert list_entries() == []


def test_what_tasks_carry_is_hidden_and_all_is_escaped(letter, operator, viewer):
    shown = operator.get(url("failure", letter.id)).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    hidden = viewer.get(url("failure", letter.id)).content.decode()
    assert "view_payloads" in hidden
    assert "alert(1)" not in hidden
    assert "Traceback" not in hidden
    for client in (operator, viewer):
        for page in (*(url(name) for name in PAGES), url("failure", letter.id)):
            assert SCRIPT not in client.get(page).content.decode()


def test_a_context_cannot_be_searched_without_the_right_to_see_it(viewer, operator):
    startTask("behave", {"student": "Ada"}, name="there")
    assert operator.get(url("tasks"), {"context": "nobody"}).context["rows"] == []
    page = viewer.get(url("tasks"), {"context": "nobody"})
    assert len(page.context["rows"]) == 1
    assert 'name="context"' not in page.content.decode()


def test_errors_cannot_be_searched_without_the_right_to_see_them(letter, viewer, operator):
    assert len(operator.get(url("failures"), {"text": "alert(1)"}).context["rows"]) == 1
    assert viewer.get(url("failures"), {"text": "alert(1)"}).context["rows"] == []
    assert len(viewer.get(url("failures"), {"text": "FatalTask"}).context["rows"]) == 1


def test_the_index_of_the_admin_links_to_it(viewer):
    assert f'href="{url("changelist")}"' in viewer.get("/admin/").content.decode()


def test_a_redirect_stays_on_the_site(operator):
    data = {"verb": "pause", "next": "https://elsewhere.example/"}
    assert operator.post(url("queue_steer", "default"), data).headers["Location"] == url("queues")
    data["next"] = url("queues") + "?x=1"
    assert operator.post(url("queue_steer", "default"), data).headers["Location"] == url("queues") + "?x=1"


def test_the_log_is_paged(operator, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.console.auditing.PAGE_SIZE", 2)
    for verb in ("pause", "resume", "pause"):
        operator.post(url("queue_steer", "default"), {"verb": verb})
    page = operator.get(url("audit"))
    assert [entry.action for entry in page.context["entries"]] == ["pause queue", "resume queue"]
    page = operator.get(url("audit") + page.context["next"])
    assert [entry.action for entry in page.context["entries"]] == ["pause queue"]
    assert page.context["next"] == ""


def test_only_the_part_that_changes_is_sent_to_htmx(operator):
    whole = operator.get(url("queues")).content.decode()
    part = operator.get(url("queues"), headers={"HX-Request": "true"}).content.decode()
    assert "<html" in whole
    assert 'hx-trigger="every 3s"' in whole
    assert "<html" not in part
    assert "soc-table" in part


def test_without_django_htmx_the_pages_work_and_say_so(operator, monkeypatch):
    is_installed = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda name: name != "django_htmx" and is_installed(name))
    page = operator.get(url("queues")).content.decode()
    assert "hx-get" not in page
    assert "htmx-2" not in page
    assert "soc-tasks[console]" in page
