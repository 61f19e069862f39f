"""Where the arguments of deferred functions travel: in the task, packed, or kept in the state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction

from soc_tasks import QueueNotFoundError, TaskAlreadyExistsError, TaskTooLargeError, defer
from soc_tasks.logic import envelopes
from soc_tasks.logic.letters import retry_letter
from soc_tasks.models import PayloadRow
from soc_tasks.state import get_state
from soc_tasks.testing import TaskFailedBehaviour
from tests.specimen import functions
from tests.specimen.functions import note
from tests.specimen.noise import LARGE, form, noise, queued

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def test_small_ones_travel_as_they_are_and_larger_ones_packed(memory_backend, task_queues, called):
    small, large = ["x" * 500, noise(500)], [["x" * 50_000], {"a": noise(50_000)}]
    for value in [*small, *large]:
        defer(note, value)
    hows = [sorted(form(task).keys() - {"function", "signature"}) for task in memory_backend.tasks_now()]
    assert hows[:3] == [["payload"], ["payload"], ["packed"]]
    assert all(len(task.body) < 60_000 for task in memory_backend.tasks_now())
    assert form(memory_backend.tasks_now()[0])["function"] == "tests.specimen.functions.note"
    assert PayloadRow.objects.count() == 0
    task_queues.process_task_queues()
    assert [args[0] for args, _ in called] == [*small, *large]


@pytest.mark.parametrize("most", [1, 100, 500, 4000, 100_000, None])
def test_the_exact_limit_of_what_travels_in_the_task(task_queues, memory_backend, settings, called, most):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = most
    longest = most or 1_048_569 - envelopes.BESIDE
    if most is not None and most < 150:
        # Not even the name of the function can be read there.
        with pytest.raises(TaskTooLargeError):
            defer(note)
        assert PayloadRow.objects.count() == 0
        return
    fits, stored = 0, longest
    while stored - fits > 1:
        number = (fits + stored) // 2
        with transaction.atomic():
            defer(note, noise(number))
            stored, fits = (number, fits) if PayloadRow.objects.exists() else (stored, number)
            transaction.set_rollback(True)
    memory_backend.clear()
    for number in (fits, stored):
        defer(note, noise(number))
        assert len(memory_backend.tasks_now()[-1].body) <= longest
    assert PayloadRow.objects.count() == 1
    with pytest.raises(TaskTooLargeError, match="leave _small_task out"):
        defer(note, noise(stored), _small_task=True)
    defer(note, noise(fits), _small_task=True)
    task_queues.process_task_queues()
    assert [args[0] for args, _ in called] == [noise(fits), noise(stored), noise(fits)]
    if most is not None and most >= 4000:
        assert fits > most * 0.5


def test_what_is_kept_is_cleared_when_the_task_has_ended(narrow, task_queues, memory_backend, called):
    defer(note, LARGE)
    task = queued(memory_backend)
    assert form(task).keys() == {"function", "signature", "stored"}
    [row] = PayloadRow.objects.all()
    assert row.start_id == task.start_id
    assert 0 < len(bytes(row.data)) < 5000
    task_queues.process_task_queues()
    assert called == [((LARGE,), {})]
    assert bytes(PayloadRow.objects.get().data) == b""


@pytest.mark.parametrize("alias", ["default", "other"])
def test_what_is_kept_rolls_back_with_the_task(narrow, task_queues, alias):
    with transaction.atomic(using=alias):
        defer(note, LARGE, _using=alias)
        transaction.set_rollback(True, using=alias)
    task_queues.assertNumTasksEquals(0)
    # On another alias it is there before the task is, and swept with time.
    assert PayloadRow.objects.count() == (alias == "other")


def test_what_is_kept_is_not_where_the_task_is_refused(narrow, task_queues):
    defer(note, LARGE, _name="once")
    with pytest.raises(TaskAlreadyExistsError):
        defer(note, LARGE, _name="once")
    with pytest.raises(QueueNotFoundError):
        defer(note, LARGE, _queue="gone")
    assert PayloadRow.objects.count() == 1


@pytest.mark.parametrize("alias", ["default", "other"])
def test_what_is_kept_commits_before_a_task_that_commits_elsewhere(narrow, memory_backend, monkeypatch, alias):
    blocks = []
    depth = len(connections["default"].savepoint_ids)
    submit = type(memory_backend).enqueue

    def watch(self, tasks, using):
        assert get_state().get_payload(tasks[0].start_id)
        blocks.append(len(connections["default"].savepoint_ids) - depth)
        submit(self, tasks, using)

    monkeypatch.setattr(type(memory_backend), "enqueue", watch)
    defer(note, LARGE, _using=alias)
    assert blocks == ([1] if alias == "default" else [0])


def test_what_is_kept_lives_as_long_as_the_task_or_its_letter_may(narrow, task_queues, settings):
    settings.SOC_TASKS = {"BACKEND": "memory", "RETENTION_DAYS": 10}
    now = get_state().now()
    for eta, days in ((None, 41), (now + timedelta(days=20), 61), (now - timedelta(days=20), 41)):
        defer(note, LARGE, _eta=eta)
        [row] = PayloadRow.objects.all()
        assert abs(row.until - now - timedelta(days=days)) < timedelta(minutes=5)
        row.delete()


def test_a_task_whose_arguments_are_kept_has_all_its_options(narrow, memory_backend, monkeypatch):
    monkeypatch.setattr(type(memory_backend), "supports_routing", True)
    eta = get_state().now() + timedelta(days=1)
    options = {"_eta": eta, "_service": "s", "_version": "v", "_headers": {"X-Trace": "1"}}
    retry = {"max_attempts": 7}
    for value in (1, LARGE):
        defer(note, value, _name=f"once-{len(str(value))}", _retry_options=retry, **options)
    small, large = memory_backend.tasks_now()
    assert [PayloadRow.objects.get().start_id, small.name, small.named] == [large.start_id, "once-1", True]
    assert (large.eta, large.service, large.version, large.retry.max_attempts) == (eta, "s", "v", 7)
    for field in ("queue", "path", "eta", "service", "version", "retry", "named"):
        assert getattr(large, field) == getattr(small, field)
    assert large.headers["X-Trace"] == "1"


def test_what_is_kept_is_swept_after_its_time(narrow, task_queues, called):
    defer(note, LARGE)
    defer(note, LARGE + "2")
    first, second = PayloadRow.objects.order_by("start_id")
    PayloadRow.objects.filter(pk=first.pk).update(until=datetime.now(UTC) - timedelta(seconds=1))
    get_state().sweep()
    assert PayloadRow.objects.get().pk == second.pk


def test_the_letter_of_a_call_keeps_what_it_needs_until_that_is_retried(narrow, task_queues, monkeypatch, called):
    monkeypatch.setattr(functions, "broken", True, raising=False)
    defer(functions.fail_if_broken, LARGE, _retry_options={"max_attempts": 1})
    task_queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
    [letter] = get_state().list_dead_letters()
    assert get_state().get_payload(letter.task.start_id)
    monkeypatch.setattr(functions, "broken", False)
    retry_letter(letter.id)
    task_queues.process_task_queues()
    assert called == [LARGE]
    assert get_state().get_payload(letter.task.start_id) == b""
    assert get_state().list_dead_letters() == []
