"""What the console sees of a backend: queues, pages of tasks, and tasks that are looked for."""

from __future__ import annotations

from functools import partial

import pytest

from soc_tasks import startTask
from soc_tasks.backends import get_backend
from soc_tasks.backends.inspection import Inspector, TaskFilter
from tests.backends.sites.base import in_thread


def names(page):
    return [record.task.name for record in page.records]


class InspectionContract:
    """Assertions on `site`."""

    def test_the_console_sees_queues(self, site):
        inspector = get_backend().inspect()
        startTask("play")
        found = {standing.name: standing for standing in in_thread(inspector.list_queues)}
        assert {"default", "quick"} <= found.keys()
        # Some sites stand still by a pause.
        assert found["quick"].state in ("running", "paused")
        assert found["quick"].is_configured
        if inspector.lists_all_queues:
            assert (found["default"].due, found["quick"].due) == (1, 0)
        else:
            assert found["default"].due is None

    def test_the_console_sees_all_tasks_of_a_queue_page_by_page(self, site):
        inspector = get_backend().inspect()
        for number in range(7):
            startTask("play", {"n": str(number)}, name=f"n{number}")
        startTask("play", queue="quick", name="elsewhere")
        asked = TaskFilter(queue="default")
        page = in_thread(lambda: inspector.list_tasks(asked, limit=3))
        seen = names(page)
        assert len(seen) == 3
        while page.next:
            page = in_thread(partial(inspector.list_tasks, asked, after=page.next, limit=3))
            seen += names(page)
        if type(inspector) is Inspector:
            # It has the first ones alone.
            assert set(seen) < {f"n{number}" for number in range(7)}
        else:
            assert sorted(seen) == [f"n{number}" for number in range(7)]

    def test_the_console_finds_tasks_by_what_they_carry(self, site):
        inspector = get_backend().inspect()
        for number in range(5):
            startTask("play", {"student": f"Ada {number}"}, name=f"n{number}")

        def find(**wanted):
            return sorted(names(in_thread(lambda: inspector.list_tasks(TaskFilter(queue="default", **wanted)))))

        assert find(context="ADA 3") == ["n3"]
        assert find(name="n2") == ["n2"]
        assert find(url="/PLAY/", name="4") == ["n4"]
        assert find(url="nothing") == []

    def test_a_place_that_is_none_is_refused(self, site):
        inspector = get_backend().inspect()
        startTask("play")

        def refused():
            with pytest.raises(ValueError, match=r"page of tasks begins|first tasks alone") as caught:
                inspector.list_tasks(TaskFilter(queue="default"), after="no place")
            return str(caught.value)

        assert in_thread(refused)
