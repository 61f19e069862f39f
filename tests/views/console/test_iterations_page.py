"""Iterations on their page: shown, steered, and their failed items tried again."""

from __future__ import annotations

import pytest

from soc_tasks import startTask
from soc_tasks.models import ShardRow
from soc_tasks.state.audit import list_entries
from tests.specimen import iterating
from tests.specimen.models import Row
from tests.views.calls import route
from tests.views.console.users import messages_of, url
from tests.views.failing import View

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture
def iteration(paused_iteration):
    """Give a paused iteration over 25 rows of which ten are done."""
    return paused_iteration


@pytest.fixture
def failed_items(task_queues):
    """Give a view that gave three rows up, and its iteration."""
    iterating.acts.clear()
    rows = Row.objects.bulk_create(Row() for _ in range(20))
    view = View([rows[2], rows[7], rows[11]], ValueError("<b>no</b>"))
    return view, view.run(task_queues)


def steer(client, iteration, verb):
    return client.post(url("iteration_steer", iteration.id), {"verb": verb}, follow=True)


def test_iterations_are_listed_and_shown_with_their_shards(iteration, operator):
    page = operator.get(url("iterations"))
    assert [row["iteration"].id for row in page.context["rows"]] == [iteration.id]
    assert 'value="0.4000"' in page.content.decode()
    ShardRow.objects.update(error="ValueError: <script>x</script>", attempts=2)
    page = operator.get(url("iteration", iteration.id))
    text = page.content.decode()
    assert "10 of 25" in text
    assert "ValueError: &lt;script&gt;x&lt;/script&gt;" in text
    assert page.context["shards"][0].cursor in text
    assert operator.get(url("iteration", "0" * 32)).status_code == 404


def test_errors_and_cursors_are_hidden_from_those_who_may_not_see_payloads(iteration, viewer):
    ShardRow.objects.update(error="ValueError: of Ada", cursor="a-secret-key")
    text = viewer.get(url("iteration", iteration.id)).content.decode()
    assert "Ada" not in text
    assert "a-secret-key" not in text
    assert 'value="resume"' not in text


def test_an_iteration_is_resumed_paused_and_cancelled(iteration, operator, task_queues):
    assert (
        messages_of(steer(operator, iteration, "pause")) == ["The iteration is paused; pause has no effect on it."]
        or iteration.refresh().status == "paused"
    )
    page = steer(operator, iteration, "resume")
    assert messages_of(page) == [f"The iteration {iteration.id} is running."]
    steer(operator, iteration, "pause")
    assert iteration.refresh().status == "paused"
    steer(operator, iteration, "cancel")
    assert iteration.refresh().status == "cancelled"
    page = steer(operator, iteration, "resume")
    assert messages_of(page) == ["The iteration is cancelled; resume has no effect on it."]
    assert [entry.action for entry in list_entries()][:3] == [
        "resume iteration",
        "cancel iteration",
        "pause iteration",
    ]
    assert list_entries()[0].outcome.startswith("refused: ")
    assert operator.post(url("iteration_steer", iteration.id), {"verb": "delete"}).status_code == 404


def test_failed_items_are_shown_and_retried_selected_or_all(failed_items, operator, task_queues):
    view, iteration = failed_items
    page = operator.get(url("iteration", iteration.id))
    items = page.context["items"]
    assert len(items) == page.context["item_count"] == 3
    assert "&lt;b&gt;no&lt;/b&gt;" in page.content.decode()
    view.bad.clear()
    page = operator.post(url("iteration_retry", iteration.id), {"item": [items[0].id]}, follow=True)
    run = page.context["iteration"]
    assert (run.retries, run.total) == (iteration.id, 1)
    with route(view.view):
        task_queues.process_task_queues()
    assert iteration.count_failed_items() == 2
    operator.post(url("iteration_retry", iteration.id), {"all": "1"})
    with route(view.view):
        task_queues.process_task_queues()
    assert iteration.count_failed_items() == 0
    page = operator.post(url("iteration_retry", iteration.id), {"all": "1"}, follow=True)
    assert messages_of(page)[-1] == "There are no failed items any more."
    page = operator.post(url("iteration_retry", iteration.id), {}, follow=True)
    assert messages_of(page)[-1] == "No failed items were selected."


def test_pages_of_iterations_follow_each_other(operator, task_queues, monkeypatch):
    monkeypatch.setattr("soc_tasks.views.console.iterations.PAGE_SIZE", 2)
    started = []
    for _ in range(5):
        started.append(startTask("rows").iteration)
        task_queues.process_task_queues()
    page = operator.get(url("iterations"))
    seen = [row["iteration"].id for row in page.context["rows"]]
    while page.context["next"]:
        page = operator.get(url("iterations") + page.context["next"])
        seen += [row["iteration"].id for row in page.context["rows"]]
    assert seen == started[::-1]
    assert operator.get(url("iterations"), {"before": "gone"}).status_code == 200
