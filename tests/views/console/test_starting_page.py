"""Starting a task: which are offered, to whom, with what."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from soc_tasks import Iteration
from soc_tasks.logic.catalog import find_task_pattern, list_task_patterns
from soc_tasks.logic.dry_run_calls import DryRunText
from soc_tasks.state.audit import list_entries
from tests.specimen.models import Row
from tests.views.console.users import log_in, messages_of, url

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def send(client, route, what="start", **data):
    return client.post(
        url("start_task"), {"route": route, "context": "{}", "queue": "default", "what": what, **data}, follow=True
    )


def test_every_decorated_url_is_offered_with_its_arguments():
    found = {pattern.route: pattern for pattern in list_task_patterns()}
    assert found["/tasks/behave/<slug:slug>/"].arguments == {"slug": "slug"}
    assert found["/tasks/behave/"].url == "behave"
    assert found["/tasks/rows/"].can_be_counted
    assert not found["/tasks/behave/"].can_be_counted
    assert not any("ordinary" in route or "deferred" in route for route in found)
    assert find_task_pattern("/nowhere/") is None


def test_a_task_is_started_with_url_arguments_and_context(operator, memory_backend, task_queues, site_calls):
    form = operator.get(url("start_task"), {"route": "/tasks/behave/<slug:slug>/"}).content.decode()
    assert 'name="url_slug"' in form
    page = send(operator, "/tasks/behave/<slug:slug>/", url_slug="ada", context='{"n": 3, "text": "x"}')
    [task] = memory_backend.tasks_now()
    assert messages_of(page) == [f"The task {task.name} for /tasks/behave/ada/ is in queue default."]
    task_queues.process_task_queues()
    [(_, request, kwargs)] = site_calls
    assert kwargs == {"slug": "ada"}
    assert request.task.context == {"n": 3, "text": "x"}
    [entry] = list_entries()
    assert (entry.action, entry.target) == ("start task", "/tasks/behave/ada/ (tests.site.behave)")


def test_an_iteration_leads_to_its_page_and_says_so_until_it_has_begun(operator, task_queues):
    Row.objects.bulk_create(Row() for _ in range(3))
    page = operator.post(
        url("start_task"), {"route": "/tasks/rows/", "context": "{}", "queue": "default", "what": "start"}
    )
    where = page.headers["Location"]
    text = operator.get(where).content.decode()
    assert "Waiting to start" in text
    task_queues.process_task_queues()
    [iteration] = Iteration.all()
    assert where == url("iteration", iteration.id)
    assert "3 of 3" in operator.get(where).content.decode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"context": "{"}, "This is no typed JSON"),
        ({"context": "[1]"}, "The context is an object"),
        ({"url_slug": "no slug"}, "do not fit into"),
        ({"queue": "nowhere"}, "Select a valid choice"),
        ({"countdown": "-1"}, "greater than or equal to 0"),
        ({"countdown": "1e9"}, "from 0 to 30 days"),
    ],
)
def test_bad_input_is_said_and_starts_nothing(operator, memory_backend, data, problem):
    page = send(operator, "/tasks/behave/<slug:slug>/", **{"url_slug": "ada", **data})
    assert problem in page.content.decode()
    assert memory_backend.tasks_now() == []


def test_entities_are_counted_without_starting(operator, memory_backend):
    Row.objects.bulk_create(Row() for _ in range(7))
    page = send(operator, "/tasks/rows/", "count")
    assert "<strong>7</strong> entities" in page.content.decode()
    page = send(operator, "/tasks/rows/", "count", context='{"filter": {"nothing": 1}}')
    assert "nothing" in page.content.decode()
    assert memory_backend.tasks_now() == []
    assert list_entries() == []


def test_a_dry_run_is_shown_with_its_command(operator, monkeypatch):
    asked = []

    def try_dry(path, context, queue):
        asked.append((path, context, queue))
        return DryRunText(command="manage.py tasks iterations", text="rows <7>", is_good=True)

    monkeypatch.setattr("soc_tasks.views.console.starting.try_dry", try_dry)
    page = send(operator, "/tasks/rows/", "dry_run", context='{"a": 1}').content.decode()
    assert asked == [("/tasks/rows/", {"a": 1}, "default")]
    assert "rows &lt;7&gt;" in page
    assert [entry.action for entry in list_entries()] == ["try task dry"]
    assert "manage.py tasks iterations" in page


def test_where_the_access_of_a_task_judges_users_they_must_pass_it(operator, memory_backend):
    clerk = User.objects.get(username="operator")
    clerk.user_permissions.add(Permission.objects.get(codename="change_entry"))
    page = operator.get(url("start"))
    offered = {row["pattern"].route: row["may_start"] for row in page.context["rows"]}
    assert offered["/tasks/behave/"]
    assert not offered["/tasks/superusers/"]
    assert offered["/tasks/staff/"]
    assert send(operator, "/tasks/superusers/").status_code == 403
    assert memory_backend.tasks_now() == []
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    send(root, "/tasks/superusers/")
    assert [task.path for task in memory_backend.tasks_now()] == ["/tasks/superusers/"]


def test_who_may_not_start_is_refused(memory_backend):
    client = log_in("view_console", "operate")
    assert client.get(url("start")).status_code == 403
    assert send(client, "/tasks/behave/").status_code == 403
    assert "Start a task" not in client.get(url("queues")).content.decode()
    assert memory_backend.tasks_now() == []
