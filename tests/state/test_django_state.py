"""The state in Django's databases: what only these have; the rest is the contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from soc_tasks import ConfigurationError
from soc_tasks.models import DeadLetterRow, OutboxRow, PayloadRow, ReceiptRow
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.shard_rows import ShardTable
from tests.contracts.state_records import RUN, make_letter, make_message, make_task

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture
def run():
    """An iteration with two shards, in the middle of its work."""
    shards = [ShardRecord(iteration=RUN, index=index, step=2, epoch=1) for index in range(2)]
    get_state().create_iteration(IterationRecord(id=RUN, name="run", unfinished=2), shards)
    return RUN


def test_a_letter_that_cannot_be_kept_fails_no_shard(run, monkeypatch):
    def fail(*_, **__):
        raise OperationalError("disk full")

    state = get_state()
    monkeypatch.setattr(DeadLetterRow, "save", fail)
    with pytest.raises(OperationalError):
        state.add_dead_letter(make_letter(make_message()))
    assert state.get_iteration(run).status == "running"
    assert {shard.status for shard in state.list_shards(run)} == {"running"}


def test_the_letter_of_a_slice_names_its_iteration(run):
    get_state().add_dead_letter(make_letter(make_message()))
    assert DeadLetterRow.objects.get().iteration == run


def test_a_sweep_takes_some_at_a_time(monkeypatch):
    monkeypatch.setattr("soc_tasks.state.django.SWEEP_ROWS", 2)
    old = timezone.now() - timedelta(days=99)
    ReceiptRow.objects.bulk_create(ReceiptRow(start_id=str(i), created=old) for i in range(5))
    assert [get_state().sweep() for _ in range(4)] == [2, 2, 1, 0]


def test_an_unknown_state_is_an_error(settings):
    settings.SOC_TASKS = {"STATE": "redis"}
    with pytest.raises(ConfigurationError, match="redis"):
        get_state()


@pytest.mark.parametrize(("error", "busy"), [("database is locked", True), ("no such column: epoch", False)])
def test_only_a_lock_counts_as_busy(monkeypatch, error, busy):
    def fail(*_, **__):
        raise OperationalError(error)

    monkeypatch.setattr(ShardTable, "lock", fail)
    with pytest.raises(ShardBusyError if busy else OperationalError), get_state().locked_shard("0" * 32, 0):
        pytest.fail("it was let in")


def test_moments_do_not_depend_on_use_tz(settings):
    settings.USE_TZ = False
    moment = datetime(2026, 10, 25, 0, 30, 0, 7, tzinfo=UTC)
    ReceiptRow.objects.create(start_id="a" * 32, created=moment)
    assert ReceiptRow.objects.get().created == moment
    assert ReceiptRow.objects.filter(created__lt=moment).count() == 0
    state = get_state()
    state.add_dead_letter(make_letter())
    assert state.list_dead_letters()[0].created.tzinfo is UTC
    state.hold_tasks([make_task()], "default")
    OutboxRow.objects.update(leased_until=moment)
    [(_, task)] = state.take_held("default")
    assert task.created.tzinfo is UTC


def test_payloads_live_on_the_database_of_the_state():
    state = get_state()
    state.keep_payload("1" * 32, b"x", state.now() + timedelta(days=1))
    assert PayloadRow.objects.using(state.alias).get().start_id == "1" * 32
    assert PayloadRow.objects.using("other").count() == 0
