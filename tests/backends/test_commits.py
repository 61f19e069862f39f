"""Tasks of an alias without our tables: queued after its commit, never without one."""

from __future__ import annotations

import grpc
import pytest
from django.db import connections, transaction

from soc_tasks import BackendUnavailableError, ConfigurationError, TaskAlreadyExistsError, startTask, startTasks
from soc_tasks.backends import commits, get_backend
from soc_tasks.engine.store import get_store
from soc_tasks.models import OutboxRow
from soc_tasks.state import get_state
from soc_tasks.state.django_outbox import DjangoOutbox
from tests.backends.fake_service import FakeService
from tests.databases import add_alias, drop_alias, migrate, sqlite_options
from tests.engine.tasks import rolled_back

HOME = "engine_database"


@pytest.fixture
def bare(tmp_path, monkeypatch, engine_database):
    """Give an alias that has a database and no tables in it, beside DATABASE."""
    monkeypatch.setattr(commits, "_told", set())
    add_alias("bare", **sqlite_options(tmp_path / "bare.sqlite3"))
    yield "bare"
    drop_alias("bare")


@pytest.fixture
def fake(settings, monkeypatch, engine_database):
    """A service in the place of Cloud Tasks; calls that fail are not made again."""
    fake = FakeService()
    settings.SOC_TASKS = {**settings.SOC_TASKS, "BACKEND": "cloud_tasks"}
    monkeypatch.setenv("TASKS_EMULATOR_HOST", fake.address)
    monkeypatch.setattr("soc_tasks.backends.cloud_tasks.service.CALL_SECONDS", 0.0)
    yield fake
    fake.stop()


@pytest.fixture(params=["embedded", "cloud_tasks"])
def queued(request, engine_database):
    """Give what tells the names of the tasks that are queued, on each backend."""
    if request.param == "embedded":
        return engine_names
    fake = request.getfixturevalue("fake")
    return lambda: sorted(name.rpartition("/")[2] for name in fake.tasks)


def engine_names():
    return sorted(record.task.name for record in get_backend().list_tasks())


def held():
    return sorted(OutboxRow.objects.using(HOME).values_list("name", flat=True))


def test_what_commits_is_queued_then(queued, bare):
    with transaction.atomic(using=bare):
        startTask("behave", name="one", using=bare)
        startTasks([{"url": "behave", "name": "two"}, {"url": "behave", "name": "three"}], using=bare)
        assert queued() == []
    assert queued() == ["one", "three", "two"]
    assert (held(), get_backend().relay()) == ([], 0)


def test_what_rolls_back_never_was(queued, bare):
    with rolled_back(using=bare):
        startTask("behave", name="lost", using=bare)
    with transaction.atomic(using=bare):
        startTask("behave", name="kept", using=bare)
        with rolled_back(using=bare):
            startTask("behave", name="undone", using=bare)
    assert queued() == ["kept"]


def test_outside_a_block_it_is_queued_at_once(queued, bare):
    startTask("behave", name="now", using=bare)
    assert queued() == ["now"]
    with pytest.raises(TaskAlreadyExistsError, match=r"86,400 s after that .*TOMBSTONE_SECONDS|24 hours after"):
        startTask("behave", name="now", using=bare)


def test_a_name_that_waits_for_the_commit_is_taken(queued, bare):
    with transaction.atomic(using=bare):
        startTask("behave", name="once", using=bare)
        with pytest.raises(TaskAlreadyExistsError):
            startTask("behave", name="once", using=bare)
        with rolled_back(using=bare):
            startTask("behave", name="again", using=bare)
        startTask("behave", name="again", using=bare)
    assert queued() == ["again", "once"]


def test_a_transaction_of_the_engine_around_it(bare):
    with transaction.atomic(using=HOME):
        with transaction.atomic(using=bare):
            startTask("behave", name="both", using=bare)
        # It would be a row of that transaction.
        assert engine_names() == []
    assert engine_names() == ["both"]


def test_a_transaction_around_it_does_not_concern_the_service(fake, bare):
    with rolled_back(using=HOME):
        with transaction.atomic(using=bare):
            startTask("behave", name="sent", using=bare)
        assert len(fake.tasks) == 1


def test_it_is_told_once(bare, caplog):
    for _ in range(2):
        with transaction.atomic(using=bare):
            startTask("behave", using=bare)
    [record] = [record for record in caplog.records if "has no outbox" in record.getMessage()]
    assert "migrate soc_tasks --database bare" in record.getMessage()


def test_what_is_refused_then_waits_in_the_outbox_of_database(fake, bare, caplog):
    fake.fault = lambda request: (grpc.StatusCode.UNAVAILABLE, False)
    with transaction.atomic(using=bare):
        startTask("behave", name="late", using=bare)
    assert (len(fake.tasks), held()) == (0, ["late"])
    fake.fault = lambda request: None
    OutboxRow.objects.using(HOME).update(leased_until=None)
    assert get_backend().relay() == 1
    assert (len(fake.tasks), held()) == (1, [])


def test_an_error_then_does_not_reach_the_caller(bare, monkeypatch, caplog):
    def fail(*_):
        raise BackendUnavailableError("gone")

    monkeypatch.setattr(type(get_store(HOME)), "accept", fail)
    with transaction.atomic(using=bare):
        startTask("behave", name="late", using=bare)
    assert held() == ["late"]
    monkeypatch.setattr(DjangoOutbox, "hold_tasks", fail)
    with transaction.atomic(using=bare):
        startTask("behave", name="never", using=bare)
    assert "are lost: never for /tasks/behave/" in caplog.text


def test_tables_that_come_are_seen(bare, monkeypatch):
    with transaction.atomic(using=bare):
        startTask("behave", name="before", using=bare)
    migrate(bare)
    # Not asked for at each enqueue.
    assert not get_state().has_outbox(bare)
    monkeypatch.setattr(get_state(), "_without", {})
    with transaction.atomic(using=bare):
        startTask("behave", name="after", using=bare)
        assert list(OutboxRow.objects.using(bare).values_list("name", flat=True)) == ["after"]


def test_an_alias_that_must_not_have_our_tables_holds_none(settings, bare):
    """They may be there all the same: those that another alias shows here, or of an older router."""
    migrate(bare)
    settings.DATABASE_ROUTERS = ["tests.backends.test_commits.NotThere"]
    with transaction.atomic(using=bare):
        startTask("behave", name="kept", using=bare)
        # The relay would not look for it there.
        assert OutboxRow.objects.using(bare).count() == 0
    assert engine_names() == ["kept"]


class NotThere:
    """A router."""

    def allow_migrate(self, db, app_label, **hints):
        """Keep tables from one alias."""
        return db != "bare"


def test_an_unknown_alias_is_refused(queued):
    with pytest.raises(ConfigurationError, match="nowhere"):
        startTask("behave", name="x", using="nowhere")
    assert "nowhere" not in connections
