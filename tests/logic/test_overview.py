"""The overview: what is counted, what is told to be wrong, and what reading it costs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from soc_tasks.backends import get_backend
from soc_tasks.engine.clock import SECOND, FakeClock, from_micros, to_micros
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.tally import MINUTE
from soc_tasks.logic.overview import CAP, read_overview
from soc_tasks.models import IterationRow, OutboxRow, ShardRow
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.contracts.state_records import OTHER, RUN, make_letter
from tests.engine.tasks import make_task
from tests.plans import Watch

pytestmark = pytest.mark.django_db(databases=["default", "other"])

START = to_micros(datetime(2026, 5, 4, 12, 0, 30, tzinfo=UTC))


@pytest.fixture
def backend(settings):
    settings.SOC_TASKS = {"BACKEND": "embedded"}
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "rate_per_second": 5, "rate_max_concurrent": 2}]
    return get_backend()


@pytest.fixture
def store(backend):
    return backend.store


@pytest.fixture
def clock(store, monkeypatch):
    clock = FakeClock(START)
    monkeypatch.setattr(store, "clock", clock)
    return clock


def kinds(overview):
    return {alert.kind: alert for alert in overview.alerts}


def test_an_idle_site(clock, store):
    store.join("here", 1, 1)
    overview = read_overview()
    assert overview.counts.as_dict() == {
        "waiting": 0, "due": 0, "running": 0, "paused": 0,
        "dead_letters": 0, "recent_dead_letters": 0, "outbox": 0, "capped": [],
    }  # fmt: skip
    assert [queue.name for queue in overview.queues] == ["default", "mail"]
    assert (overview.queues[1].rate_limit, overview.queues[1].concurrency) == (5, 2)
    assert (overview.workers, overview.alerts) == (1, ())
    assert overview.last_seen == from_micros(clock.now())


def test_counts_by_state(clock, store):
    later = from_micros(clock.now() + 60 * SECOND)
    store.add(
        [make_task(), make_task(), make_task(eta=later), make_task(queue="mail"), make_task(queue="mail", eta=later)]
    )
    store.exchange(store.join("here", 1, 1), [], 1, {"default"})
    store.set_paused("mail", True)
    get_state().add_dead_letter(make_letter())
    clock.advance(10)
    overview = read_overview()
    counts = overview.counts
    assert (counts.waiting, counts.due, counts.running, counts.paused) == (4, 1, 1, 2)
    assert (counts.dead_letters, counts.outbox) == (1, 0)
    default, mail = overview.queues
    assert (default.waiting, default.due, default.running, default.oldest_age) == (2, 1, 1, 10.0)
    assert (mail.paused, mail.waiting, mail.due, mail.configured) == (True, 2, 1, True)
    assert kinds(overview)["queue_paused"].queue == "mail"


def test_queues_that_are_not_configured_are_shown(clock, store):
    store.add([make_task(queue="gone")])
    assert [(queue.name, queue.configured) for queue in read_overview().queues] == [
        ("default", True), ("gone", False), ("mail", True),
    ]  # fmt: skip


def test_the_last_hour_by_minute_and_the_rate_of_late(clock, store):
    minute = START - START % MINUTE
    store.add_minutes([
        MinuteRecord(minute, "default", 20, 10, 1, 3 * SECOND),
        MinuteRecord(minute, "mail", 1),
        MinuteRecord(minute - MINUTE, "default", 60),
        MinuteRecord(minute - 59 * MINUTE, "default", 5),
        MinuteRecord(minute - 60 * MINUTE, "default", 1000),
    ])  # fmt: skip
    overview = read_overview()
    chart = overview.minutes
    assert [each.minute for each in chart] == [from_micros(minute - n * MINUTE) for n in range(59, -1, -1)]
    assert (chart[0].succeeded, chart[1].succeeded, chart[-2].succeeded) == (5, 0, 60)
    assert (chart[-1].succeeded, chart[-1].failed, chart[-1].dead, chart[-1].seconds) == (21, 10, 1, 3.0)
    default = overview.queues[0]
    assert (default.succeeded, default.failed, default.dead) == (85, 10, 1)
    # 90 attempts in the minute before and the 30 seconds of this one.
    assert (default.rate, default.failure_rate) == (1.0, pytest.approx(10 / 90))
    assert default.mean_seconds == pytest.approx(3 / 95)


def test_iterations_that_run_are_shown_with_their_progress(clock, backend):
    state = get_state()
    shards = [ShardRecord(iteration=RUN, index=0, done=25, context=json.dumps({"secret": "s"}))]
    state.create_iteration(IterationRecord(id=RUN, name="app.view", total=100), shards)
    state.create_iteration(IterationRecord(id=OTHER, name="done", status="succeeded"), [])
    IterationRow.objects.filter(pk=OTHER).update(finished=datetime.now(UTC))
    [iteration] = read_overview().iterations
    assert (iteration.id, iteration.done, iteration.total) == (RUN, 25, 100)
    assert iteration.progress.share == 0.25


class TestAlerts:
    def test_no_worker_is_an_error_once_something_is_due(self, clock, store):
        assert kinds(read_overview())["no_worker"].level == "warning"
        store.add([make_task()])
        alert = kinds(read_overview())["no_worker"]
        assert (alert.level, alert.count) == ("error", 1)
        assert "manage.py tasks run" in alert.message
        store.join("here", 1, 1)
        assert "no_worker" not in kinds(read_overview())
        clock.advance(61)
        overview = read_overview()
        assert "seen since" in kinds(overview)["no_worker"].message
        assert overview.workers == 0

    def test_a_task_that_is_late(self, clock, store):
        store.add([make_task()])
        clock.advance(300)
        assert "queue_late" not in kinds(read_overview())
        clock.advance(420)
        alert = kinds(read_overview())["queue_late"]
        assert "12 minutes" in alert.message
        store.set_paused("default", True)
        assert set(kinds(read_overview())) == {"no_worker", "queue_paused"}

    def test_dead_letters_of_the_last_hour(self, backend):
        get_state().add_dead_letter(make_letter())
        assert kinds(read_overview())["dead_letters"].count == 1

    @pytest.mark.parametrize("place", ["default", "other"])
    def test_an_outbox_that_nobody_relays(self, backend, place):
        old = datetime.now(UTC) - timedelta(minutes=3)
        get_state().hold_tasks([make_task(created=old)], place)
        overview = read_overview()
        assert overview.counts.outbox == 1
        assert "tasks relay" in kinds(overview)["outbox_waits"].message
        OutboxRow.objects.using(place).update(created=datetime.now(UTC))
        assert "outbox_waits" not in kinds(read_overview())

    def test_a_shard_without_progress(self, backend):
        state = get_state()
        shards = [ShardRecord(iteration=RUN, index=index) for index in range(3)]
        state.create_iteration(IterationRecord(id=RUN, name="app.view"), shards)
        long_ago = datetime.now(UTC) - timedelta(minutes=6)
        ShardRow.objects.filter(index__in=(0, 1)).update(progressed_at=long_ago)
        ShardRow.objects.filter(index=1).update(hold="the other side rests")
        alert = kinds(read_overview())["iteration_stalled"]
        assert (alert.iteration, alert.count) == (RUN, 1)

    def test_the_worst_comes_first(self, clock, store):
        get_state().add_dead_letter(make_letter())
        store.add([make_task()])
        assert [alert.level for alert in read_overview().alerts] == ["error", "warning"]


class TestJson:
    def test_it_is_ready_for_json_and_holds_nothing_that_tasks_carry(self, clock, store):
        store.add([make_task("/pay/secret-path/", body=b"secret-body", headers={"X-Note": "secret-header"})])
        get_state().add_dead_letter(make_letter(error="secret-error", traceback="secret-trace"))
        shards = [ShardRecord(iteration=RUN, index=0, cursor="secret-key", error="secret-words")]
        get_state().create_iteration(
            IterationRecord(id=RUN, name="app.view", options={"context": "secret-context"}), shards
        )
        text = json.dumps(read_overview().as_dict())
        assert "secret" not in text
        values = json.loads(text)
        assert values["time"] == "2026-05-04T12:00:30+00:00"
        assert values["iterations"][0]["name"] == "app.view"
        assert values["iterations"][0]["done"] == 0
        assert len(values["minutes"]) == 60
        assert {alert["kind"] for alert in values["alerts"]} == {"no_worker", "dead_letters"}


class TestOtherBackends:
    def test_on_the_memory_backend(self, memory_backend):
        memory_backend.submit([make_task(), make_task(eta=datetime.now(UTC) + timedelta(hours=1))], None)
        overview = read_overview()
        assert (overview.counts.waiting, overview.counts.due) == (2, 1)
        assert (overview.minutes, overview.workers) == (None, None)
        assert overview.queues[0].rate is None
        assert json.dumps(overview.as_dict())


@pytest.mark.skipif(connection.vendor != "sqlite", reason="counts the steps of SQLite's virtual machine")
class TestCosts:
    def fill(self, number, queue):
        columns = "queue, name, state, due, path, headers, body, start_id, created"
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO soc_tasks_engine_task ({columns})"
                " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s)"
                " SELECT %s, 'n' || i, 0, i, '/p', '{}', '', 's', i FROM n",
                [number, queue],
            )
            cursor.execute(
                "INSERT INTO soc_tasks_deadletter (queue, name, path, script_name, headers, body, options, start_id,"
                " created, attempts, error_type, error, traceback, iteration)"
                " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %s)"
                " SELECT %s, 'n' || i, '/p', '', '{}', '', '', 's', %s + i, 1, 'E', '', '', '' FROM n",
                [number, queue, to_micros(datetime.now(UTC))],
            )

    def test_reading_does_not_cost_more_where_there_is_more(self, backend):
        self.fill(CAP + 1, "default")
        read_overview()
        with Watch() as few:
            read_overview()
        self.fill(5 * CAP, "mail")
        self.fill(5 * CAP, "default2")
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        with Watch() as many:
            overview = read_overview()
        assert overview.counts.capped == ("dead_letters", "recent_dead_letters", "waiting", "due")
        assert overview.counts.dead_letters == CAP
        # Two more queues to count, each up to the cap, in eleven times the rows.
        assert many.steps < 3.5 * few.steps
        assert len(many.statements) == len(few.statements) <= 20
        # No table is read in whole, and none by an index that holds other states as well.
        assert not any("SCAN soc_tasks_engine_task USING INDEX sqlite_auto" in line for line in many.explain())
        scans = [line for line in many.explain() if line.startswith("SCAN soc_tasks") and "USING" not in line]
        assert [line for line in scans if "engine_task" in line] == []
