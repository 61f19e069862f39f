"""Deliveries of a queue that knows no "busy", Cloud Tasks: they come again as copies, and count as no attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from soc_tasks import BackendUnavailableError, FatalTaskError, Iteration, iterative_task, startTask, task
from soc_tasks.backends import get_backend
from soc_tasks.meta import read_meta
from soc_tasks.models import ReceiptRow, ShardRow
from soc_tasks.state import get_state
from soc_tasks.state.base import BusyError
from soc_tasks.values import DELIVERY_KEY, Delivery
from tests.specimen.models import Row
from tests.views.calls import route
from tests.views.test_iterative import deliver_first

pytestmark = pytest.mark.django_db

MOST = 3


def call(made, retries=0, **more):
    """Deliver a task as Cloud Tasks does; return the answer's status."""
    tried = read_meta(made).tried + retries
    told = Delivery(
        queue=made.queue,
        name=made.name,
        retry_count=tried,
        is_last_attempt=tried == MOST - 1,
        is_overdue=tried >= MOST,
        takes_countdown=False,
        **more,
    )
    headers = {name: value for name, value in made.headers.items() if name != "Content-Type"}
    return Client().generic("POST", made.path, made.body, headers=headers, **{DELIVERY_KEY: told}).status_code


@pytest.fixture
def copies(task_queues, memory_backend):
    """Return the tasks that wait; they are taken out."""

    def take():
        memory_backend.collect()
        taken = list(memory_backend.tasks)
        memory_backend.tasks.clear()
        return taken

    return take


@pytest.fixture
def run(copies, memory_backend):
    """Start an iteration over three rows, with a view for its batches; return the task of its slice."""
    Row.objects.bulk_create(Row() for _ in range(3))

    def run(view):
        startTask(view)
        deliver_first(memory_backend)
        return copies()[0]

    return run


def lease(seconds=20.0, **changes):
    ShardRow.objects.update(owner="other", until=get_state().now() + timedelta(seconds=seconds), **changes)


def end_lease():
    lease(-1.0)


def test_a_busy_slice_comes_again_when_the_lease_ends(run, copies):
    seen = []
    view = iterative_task(Row)(lambda request, entities: seen.extend(entities))
    with route(view):
        made = run(view)
        lease()
        assert call(made) == 200
        [copy] = copies()
        assert 15 < (copy.eta - get_backend().now()).total_seconds() <= 21
        # The answer was lost: it is the same copy.
        assert call(made, retries=1) == 200
        assert [again.name for again in copies()] == [copy.name]
        # However often: none of these is an attempt.
        for _ in range(3 * MOST):
            assert call(copy) == 200
            [copy] = copies()
        assert read_meta(copy).tried == 0
        end_lease()
        assert call(copy) == 200
    assert len(seen) == 3
    assert Iteration.all()[0].status == "succeeded"


def test_a_slice_keeps_the_attempts_that_it_had(run, copies):
    view = iterative_task(Row)(lambda request, entities: None)
    with route(view):
        made = run(view)
        lease()
        assert call(made, retries=2) == 200
        [copy] = copies()
    assert read_meta(copy).tried == 2


def test_a_lock_is_waited_for_longer_each_time(run, copies, monkeypatch):
    view = iterative_task(Row, atomic=True)(lambda request, entities: None)

    def locked(*args, **kwargs):
        raise BusyError("locked")

    waits = []
    with route(view):
        made = run(view)
        monkeypatch.setattr(type(get_state()), "locked_shard", locked)
        for _ in range(9):
            assert call(made) == 200
            [made] = copies()
            waits.append(round((made.eta - get_backend().now()).total_seconds()))
    assert waits == sorted(waits)
    assert waits[0] <= 1
    assert waits[-1] == 30


def test_where_no_copy_can_be_made_the_task_stays(run, monkeypatch):
    view = iterative_task(Row)(lambda request, entities: None)

    def away(*args):
        raise BackendUnavailableError("no service")

    with route(view):
        made = run(view)
        lease()
        monkeypatch.setattr(type(get_backend()), "submit", away)
        assert call(made) == 500


def test_a_receipt_that_another_delivery_writes_is_waited_for(copies, monkeypatch):
    ran = []
    view = task(atomic=True)(lambda request: ran.append(1))

    def locked(*args):
        raise BusyError("locked")

    with route(view):
        startTask(view)
        [made] = copies()
        with monkeypatch.context() as patched:
            patched.setattr(type(get_state()), "claim_receipt", locked)
            assert call(made) == 200
        [copy] = copies()
        assert call(made) == call(copy) == 200
    assert (len(ran), ReceiptRow.objects.count()) == (1, 1)


def test_an_overdue_duplicate_does_not_fail_a_run_that_is_at_work(run, copies):
    statuses = []

    def work(request, entities):
        if not statuses:
            statuses.extend(call(made, retries=number) for number in range(MOST + 2))

    view = iterative_task(Row)(work)
    with route(view):
        made = run(view)
        assert call(made) == 200
        assert statuses == [200] * (MOST + 2)
        assert Iteration.all()[0].status == "succeeded"
        for copy in copies():
            assert call(copy) == 200
    assert copies() == []
    assert Iteration.all()[0].status == "succeeded"
    assert get_state().list_dead_letters() == []


@pytest.mark.parametrize("atomic", [True, False])
def test_an_overdue_slice_waits_where_the_shard_got_on_of_late(run, copies, atomic):
    view = iterative_task(Row, atomic=atomic)(lambda request, entities: None)
    with route(view):
        made = run(view)
        ShardRow.objects.update(progressed_at=get_state().now())
        assert call(made, retries=MOST) == 200
        assert Iteration.all()[0].status == "running"
        [copy] = copies()
        ShardRow.objects.update(progressed_at=get_state().now() - timedelta(minutes=1))
        assert call(copy) == 200
    assert Iteration.all()[0].status == "failed"
    assert len(get_state().list_dead_letters()) == 1


def test_an_overdue_slice_is_given_up_when_the_lease_of_a_dead_process_ends(run, copies):
    view = iterative_task(Row)(lambda request, entities: None)
    with route(view):
        made = run(view)
        lease()
        assert call(made, retries=MOST) == 200
        assert Iteration.all()[0].status == "running"
        [copy] = copies()
        assert read_meta(copy).tried == MOST
        end_lease()
        assert call(copy) == 200
    assert Iteration.all()[0].status == "failed"


def test_a_fatal_error_fails_the_shard_at_once(run, copies):
    def work(request, entities):
        raise FatalTaskError("never")

    view = iterative_task(Row)(work)
    with route(view):
        assert call(run(view)) == 200
    assert copies() == []
    assert Iteration.all()[0].status == "failed"


def test_a_fatal_error_fails_no_shard_that_another_has_by_now(run, copies):
    def work(request, entities):
        lease()
        raise FatalTaskError("never")

    view = iterative_task(Row)(work)
    with route(view):
        assert call(run(view)) == 200
    assert len(copies()) == 1
    assert Iteration.all()[0].status == "running"
    assert get_state().list_dead_letters() == []


@pytest.mark.parametrize("atomic", [True, False])
def test_an_overdue_slice_that_got_on_is_handed_over(run, copies, atomic):
    """Its processes were killed between two batches, again and again."""
    seen = []

    def work(request, entities):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.extend(entities)

    view = iterative_task(Row, batch_size=1, atomic=atomic)(work)
    with route(view):
        made = run(view)
        with pytest.raises(KeyboardInterrupt):
            call(made)
        seen.append(None)
        end_lease()
        assert call(made, retries=MOST) == 200
        assert Iteration.all()[0].status == "running"
        [following] = copies()
        assert read_meta(following).slice.step == 1
        # Late.
        assert call(made, retries=MOST) == 200
        assert copies() == []
        # One with which it does not get on any more is given up.
        ShardRow.objects.update(progressed_at=get_state().now() - timedelta(minutes=1))
        assert call(following, retries=MOST) == 200
    assert Iteration.all()[0].status == "failed"
