"""The outbox: tasks of another alias exist if and only if its transaction commits, whoever dies in between."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.utils import timezone

from soc_tasks import (
    BackendUnavailableError,
    startTask,
)
from soc_tasks.backends import get_backend, outbox
from soc_tasks.engine.store import get_store
from soc_tasks.models import OutboxRow
from soc_tasks.state import get_state
from soc_tasks.values import Task

pytestmark = pytest.mark.django_db(databases=["default", "other"], transaction=True)


class Taker:
    """Takes tasks over as a backend does, or fails to."""

    def __init__(self):
        self.names = []
        self.error = None

    def __call__(self, tasks):
        if self.error is not None:
            raise self.error
        self.names.extend(task.name for task in tasks)


@pytest.fixture
def taker():
    return Taker()


def make(*names):
    return [Task(queue="default", name=name, path="/tasks/behave/", named=True, start_id=name) for name in names]


def waiting(using="other"):
    return list(OutboxRow.objects.using(using).order_by("pk").values_list("name", flat=True))


def end_leases(using="other"):
    OutboxRow.objects.using(using).update(leased_until=timezone.now() - timedelta(seconds=1))


def test_what_commits_is_handed_on_and_leaves_no_row(taker):
    with transaction.atomic(using="other"):
        outbox.hold(make("a", "b"), "other", taker)
        assert (taker.names, waiting()) == ([], ["a", "b"])
    assert (taker.names, waiting()) == (["a", "b"], [])


def test_outside_a_block_it_is_handed_on_at_once(taker):
    outbox.hold(make("a"), "other", taker)
    assert (taker.names, waiting()) == (["a"], [])


def test_what_rolls_back_never_was(taker):
    with transaction.atomic(using="other"):
        outbox.hold(make("a"), "other", taker)
        transaction.set_rollback(True, using="other")
    assert outbox.relay(taker) == 0
    assert (taker.names, waiting()) == ([], [])


def test_what_rolls_back_to_a_savepoint_never_was(taker):
    with transaction.atomic(using="other"):
        outbox.hold(make("a"), "other", taker)
        with transaction.atomic(using="other"):
            outbox.hold(make("b"), "other", taker)
            transaction.set_rollback(True, using="other")
    assert (taker.names, waiting()) == (["a"], [])


def test_another_alias_decides_nothing(taker):
    with transaction.atomic(using="default"):
        outbox.hold(make("a"), "other", taker)
        # Handed on now, it would be rolled back with a transaction that is none of its business.
        assert taker.names == []
        transaction.set_rollback(True, using="default")
    assert (taker.names, waiting()) == ([], ["a"])
    end_leases()
    assert (outbox.relay(taker), taker.names, waiting()) == (1, ["a"], [])


def test_a_transaction_around_it_only_puts_it_off(taker):
    with transaction.atomic(using="default"), transaction.atomic(using="other"):
        outbox.hold(make("a"), "other", taker)
    assert (taker.names, waiting()) == (["a"], [])


def test_a_database_without_the_table_says_what_to_do(taker, monkeypatch):
    def fail(*_):
        raise OperationalError("no such table: soc_tasks_outbox")

    monkeypatch.setattr(type(get_state()), "hold_tasks", fail)
    with pytest.raises(BackendUnavailableError, match="migrate --database other"):
        outbox.hold(make("a"), "other", taker)


@pytest.mark.parametrize("error", [BackendUnavailableError("x"), OperationalError("x"), RuntimeError("x")])
def test_what_could_not_be_handed_on_stays_for_the_relay(taker, caplog, error):
    taker.error = error
    with transaction.atomic(using="other"):
        outbox.hold(make("a"), "other", taker)
    assert waiting() == ["a"]
    assert "x" in caplog.text
    taker.error = None
    # Whoever holds it may still be at it.
    assert (outbox.relay(taker), taker.names) == (0, [])
    end_leases()
    assert (outbox.relay(taker), taker.names, waiting()) == (1, ["a"], [])
    assert outbox.relay(taker) == 0


def test_a_relay_that_fails_leaves_the_rows(taker):
    taker.error = BackendUnavailableError("x")
    outbox.hold(make("a", "b"), "other", taker)
    end_leases()
    assert outbox.relay(taker) == 0
    assert waiting() == ["a", "b"]
    taker.error = None
    assert outbox.relay(taker) == 0
    end_leases()
    assert (outbox.relay(taker), taker.names) == (2, ["a", "b"])


def test_the_relay_looks_at_all_aliases_and_takes_all(taker, monkeypatch):
    monkeypatch.setattr(outbox, "RELAY_BATCH", 2)
    taker.error = BackendUnavailableError("x")
    names = [f"t{i}" for i in range(5)]
    for alias in ("other", "default"):
        outbox.hold(make(*names), alias, taker)
        end_leases(alias)
    taker.error = None
    assert outbox.relay(taker) == 10
    assert sorted(taker.names) == sorted(names * 2)
    assert waiting("default") == waiting("other") == []


def test_a_task_that_is_handed_on_twice_comes_twice_and_breaks_nothing(taker, monkeypatch):
    """The process died between handing on and dropping the row."""
    state = type(outbox.get_state())
    with monkeypatch.context() as patch:
        patch.setattr(state, "drop_held", lambda *_: None)
        outbox.hold(make("a"), "other", taker)
    end_leases()
    assert outbox.relay(taker) == 1
    assert (taker.names, waiting()) == (["a", "a"], [])


# The embedded backend goes by way of it.


def queued():
    return [record.task.name for record in get_backend().list_tasks()]


def test_the_relay_hands_what_is_left_to_the_engine_once(monkeypatch):
    store = type(get_store("default"))

    def unavailable(*_):
        raise BackendUnavailableError("x")

    with monkeypatch.context() as patch:
        patch.setattr(store, "accept", unavailable)
        startTask("behave", name="late", using="other")
    assert (queued(), waiting()) == ([], ["late"])
    end_leases()
    assert get_backend().relay() == 1
    assert (queued(), waiting()) == (["late"], [])


def test_an_outbox_that_is_gone_is_told_of_once_until_it_is_back(taker, monkeypatch, caplog):
    state = type(get_state())
    monkeypatch.setattr(state, "outbox_aliases", lambda self: ["other"])
    told = []
    for gone in (True, True, False, True):
        caplog.clear()
        with monkeypatch.context() as patch:
            if gone:
                patch.setattr(state, "take_held", fail_to_connect)
            outbox.relay(taker)
        told.append([record.getMessage() for record in caplog.records])
    line = "could not hand on what waits in the outbox on other, trying again: the server is gone"
    assert told == [[line], [], [], [line]]
    outbox._in_trouble.clear()


def fail_to_connect(*_, **__):
    raise OperationalError("the server is gone")
