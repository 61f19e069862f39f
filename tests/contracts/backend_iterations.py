"""An iteration comes to all entities once, and to its end."""

from __future__ import annotations

import pytest

from soc_tasks import FatalTaskError, Iteration, startTask
from soc_tasks.state import get_state
from tests.contracts.backend_site import acts, calls
from tests.specimen.models import Tag


@pytest.fixture
def names(site):
    """Make entities, and give their names in order."""
    names = [f"tag {n:02}" for n in range(35)]
    for name in names:
        Tag.objects.create(name=name)
    return names


def visited():
    return [name for call in calls for name in call.kwargs["entities"]]


class IterationsContract:
    """Assertions on iterations."""

    names = names

    def test_each_entity_comes_once_and_the_iteration_ends(self, site, names):
        handle = startTask("visit", {"visited": 0}, "quick")
        site.run()
        assert visited() == names
        assert [call.kwargs["visited"] for call in calls] == [10, 20, 30, 35]
        # Time is up after each batch: every slice is a task of its own, in the same queue.
        assert [call.info.step for call in calls] == [0, 1, 2, 3]
        assert {call.info.queue for call in calls} == {"quick"}
        assert len({call.info.name for call in calls}) == 4
        iteration = Iteration.get(handle.iteration)
        assert (iteration.status, iteration.done, iteration.total) == ("succeeded", 35, 35)
        assert site.count() == 0

    def test_a_batch_that_fails_comes_again(self, site, names):
        acts.extend([None, ValueError("once"), None])
        handle = startTask("visit", None, "quick")
        site.run()
        assert visited() == names[:20] + names[10:]
        assert Iteration.get(handle.iteration).status == "succeeded"
        assert get_state().list_dead_letters() == []

    def test_a_batch_that_cannot_succeed_ends_the_iteration(self, site, names):
        acts.extend([None, FatalTaskError("no use")])
        handle = startTask("visit", None, "quick")
        site.run()
        assert visited() == names[:20]
        assert Iteration.get(handle.iteration).status == "failed"
        assert [letter.error for letter in get_state().list_dead_letters()] == ["no use"]

    def test_what_an_atomic_batch_writes_is_written_once(self, site, names):
        acts.extend([None, ValueError("once")])
        handle = startTask("mark", None, "quick")
        site.run()
        assert [tag.name for tag in Tag.objects.order_by("pk")] == [f"{name}!" for name in names]
        assert Iteration.get(handle.iteration).status == "succeeded"
        assert site.count() == 0

    def test_what_fails_alone_is_given_up_and_tried_again(self, site, names):
        Tag.objects.filter(name__in=[names[0], names[17], names[34]]).update(name="bad")
        handle = startTask("choose", None, "quick")
        site.run()
        iteration = Iteration.get(handle.iteration)
        assert (iteration.status, iteration.done, iteration.failed) == ("succeeded", 32, 3)
        assert [item.error for item in iteration.failed_items()] == ["bad"] * 3
        Tag.objects.filter(name="bad").update(name="good")
        retry = iteration.retry_failed()
        site.run()
        assert (retry.refresh().status, retry.done, iteration.count_failed_items()) == ("succeeded", 3, 0)
        assert Tag.objects.filter(name="good!").count() == 3
        assert not Tag.objects.filter(name__contains="!!").exists()
        assert site.count() == 0
