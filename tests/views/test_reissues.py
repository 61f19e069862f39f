"""Slices whose task may be gone, on a queue that keeps names of tasks that are gone: it is asked before another."""

from __future__ import annotations

from datetime import timedelta

import pytest

from soc_tasks import BackendUnavailableError, Iteration, iterative_task, repeatTask, startTask
from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.logic.upkeep import reissue_stuck
from soc_tasks.models import ShardRow
from soc_tasks.state import get_state
from tests.specimen.models import Row
from tests.views.calls import route
from tests.views.test_busy_copies import call
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def remembering(monkeypatch):
    monkeypatch.setattr(MemoryBackend, "remembers_names", True)


@pytest.fixture
def start(task_queues, memory_backend):
    """Start an iteration over three rows; its first slice waits."""
    Row.objects.bulk_create(Row() for _ in range(3))

    def start(view):
        startTask(view)
        deliver_first(memory_backend)

    return start


def look_again():
    """Let an hour pass, and look after what is stuck."""
    ShardRow.objects.update(progressed_at=get_state().now() - timedelta(hours=1))
    return reissue_stuck()


def test_what_waits_is_not_queued_twice(start, memory_backend):
    view = iterative_task(Row)(lambda request, entities: None)
    with route(view):
        start(view)
        assert [look_again() for _ in range(5)] == [0] * 5
        assert len(memory_backend.tasks_now()) == 1


def test_what_a_throttle_holds_is_not_queued_twice(start, memory_backend):
    view = iterative_task(Row, throttle=lambda: 6 * 3600)(lambda request, entities: None)
    with route(view):
        start(view)
        deliver_first(memory_backend)
        assert look_again() == 0
        assert len(memory_backend.tasks_now()) == 1


def test_what_was_purged_is_queued_once(start, memory_backend):
    seen = []
    view = iterative_task(Row)(lambda request, entities: seen.extend(entities))
    with route(view):
        start(view)
        [gone] = memory_backend.tasks_now()
        memory_backend.purge("default")
        assert [look_again() for _ in range(3)] == [1, 0, 0]
        [made] = memory_backend.tasks_now()
        assert made.name != gone.name
        # And once more.
        memory_backend.purge("default")
        assert [look_again() for _ in range(2)] == [1, 0]
        deliver_first(memory_backend)
    assert len(seen) == 3
    assert Iteration.all()[0].status == "succeeded"


@pytest.mark.parametrize("again", ["busy", "countdown"])
def test_copies_are_asked_for_by_their_names(start, memory_backend, again):
    view = iterative_task(Row)(lambda request, entities: repeatTask(3600))
    with route(view):
        start(view)
        [made] = memory_backend.tasks_now()
        memory_backend.tasks.clear()
        if again == "busy":
            ShardRow.objects.update(owner="other", until=get_state().now() + timedelta(seconds=20))
        assert call(made) == 200
        memory_backend.collect()
        [copy] = memory_backend.tasks_now()
        assert copy.name != made.name
        ShardRow.objects.update(owner="", until=None)
        assert [look_again() for _ in range(3)] == [0] * 3
        memory_backend.purge("default")
        assert [look_again() for _ in range(3)] == [1, 0, 0]


def test_the_next_slice_is_asked_for_by_its_own_name(start, memory_backend):
    view = iterative_task(Row, batch_size=1, time_limit=1e-9)(lambda request, entities: None)
    with route(view):
        start(view)
        memory_backend.purge("default")
        assert look_again() == 1
        deliver_first(memory_backend)
        assert ShardRow.objects.get().step == 1
        assert look_again() == 0
        memory_backend.purge("default")
        assert look_again() == 1


def test_where_nobody_can_tell_nothing_is_queued(start, memory_backend, monkeypatch, caplog):
    def away(*args):
        raise BackendUnavailableError("Its account needs the role x.")

    view = iterative_task(Row)(lambda request, entities: None)
    with route(view):
        start(view)
        monkeypatch.setattr(MemoryBackend, "has_task", away)
        assert look_again() == 0
        assert "Its account needs the role x." in caplog.text


def test_of_two_relays_one_queues_it(start, memory_backend, monkeypatch):
    view = iterative_task(Row)(lambda request, entities: None)
    with route(view):
        start(view)
        memory_backend.purge("default")
        ShardRow.objects.update(progressed_at=get_state().now() - timedelta(hours=1))

        def other(backend, task):
            monkeypatch.setattr(MemoryBackend, "has_task", lambda *args: False)
            assert look_again() == 1
            return False

        monkeypatch.setattr(MemoryBackend, "has_task", other)
        assert reissue_stuck() == 0
        assert len(memory_backend.tasks_now()) == 1
