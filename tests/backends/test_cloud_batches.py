"""Many tasks at once, by batches: what becomes of each is told, whatever the service does with the batch."""

from __future__ import annotations

import grpc
import pytest

from soc_tasks import startTasks
from soc_tasks.backends.cloud_tasks import service as service_module
from soc_tasks.backends.cloud_tasks.batches import FEWEST, MOST
from soc_tasks.errors import BackendUnavailableError, EnqueueError, TaskAlreadyExistsError

pytestmark = pytest.mark.django_db(transaction=True)
CODE = grpc.StatusCode
NAMES = [f"t{number}" for number in range(250)]


def start(names=NAMES, **fields):
    return startTasks([{"url": "/tasks/behave/", "name": name, **fields} for name in names])


def created(fake):
    return [name.rpartition("/")[2] for name in fake.tasks]


def sizes(fake):
    return [len(batch.requests) for batch in fake.batches]


def test_many_tasks_go_in_batches_and_keep_their_order(backend, fake):
    assert [handle.name for handle in start()] == NAMES
    assert sorted(created(fake)) == sorted(NAMES)
    assert sorted(sizes(fake)) == [50, MOST, MOST]
    assert fake.requests == []
    queue = "projects/school/locations/europe-west1/queues/default"
    assert {batch.parent for batch in fake.batches} == {queue}
    assert {facts["x-goog-request-params"] for facts in fake.metadata} == {"parent=" + queue.replace("/", "%2F")}


def test_a_few_go_by_themselves(backend, fake):
    start(NAMES[: FEWEST - 1])
    assert fake.batches == []
    assert len(fake.tasks) == FEWEST - 1


def test_a_batch_is_of_one_queue(backend, fake, settings):
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail"}]
    startTasks([{"url": "/tasks/behave/", "queue": queue} for queue in ("default", "mail") * 10])
    assert sorted(batch.parent.rpartition("/")[2] for batch in fake.batches) == ["default", "mail"]
    assert all(each.parent == batch.parent for batch in fake.batches for each in batch.requests)
    assert len(fake.tasks) == 20


def test_large_tasks_make_small_batches(backend, fake):
    start(NAMES[:12], context={"text": "x" * 400_000})
    assert sizes(fake) == [2] * 6
    assert len(fake.tasks) == 12


def test_of_a_batch_each_is_told_what_became_of_it(backend, fake):
    start(["t7"])
    fake.fault = lambda request: (CODE.INVALID_ARGUMENT, False) if request.task.name.endswith("t3") else None
    with pytest.raises(EnqueueError, match="248 of 250 tasks were created, 2 were not") as raised:
        start()
    failed = {number: type(each) for number, each in enumerate(raised.value.results) if each is not None}
    assert failed == {3: type(raised.value), 7: TaskAlreadyExistsError}
    assert sorted(created(fake)) == sorted(set(NAMES) - {"t3"})
    assert fake.requests[1:] == []


def test_where_none_is_taken_all_are_told(backend, fake):
    fake.fault = lambda request: (CODE.FAILED_PRECONDITION, False)
    with pytest.raises(EnqueueError, match="0 of 20 tasks were created"):
        start(NAMES[:20])
    assert len(fake.batches) == 1


def test_what_is_not_done_at_once_is_asked_after(backend, fake):
    fake.looks = 3
    start()
    assert sorted(created(fake)) == sorted(NAMES)
    assert fake.requests == []


def test_a_look_that_is_lost_is_made_again(backend, fake):
    told = iter([CODE.UNAVAILABLE, CODE.DEADLINE_EXCEEDED])
    fake.looks, fake.look_fault = 3, lambda: next(told, None)
    start(NAMES[:20])
    assert len(fake.tasks) == 20
    assert fake.requests == []


def test_what_may_not_be_asked_after_is_created_one_by_one(backend, fake):
    fake.looks, fake.look_fault = 1, lambda: CODE.PERMISSION_DENIED
    assert [handle.name for handle in start(NAMES[:20])] == NAMES[:20]
    assert len(fake.tasks) == len(fake.requests) == 20
    # And from now on so is all.
    start(NAMES[20:40])
    assert (len(fake.tasks), len(fake.requests), len(fake.batches)) == (40, 40, 1)


def test_a_service_without_batches_gets_tasks_one_by_one(backend, fake):
    fake.batch_fault = None
    assert [handle.name for handle in start()] == NAMES
    assert sorted(created(fake)) == sorted(NAMES)
    assert len(fake.requests) == 250


@pytest.mark.parametrize("taken", [True, False])
def test_a_batch_without_an_answer_is_sent_again_and_no_task_comes_twice(backend, fake, taken):
    fake.batch_fault = lambda request: (CODE.UNAVAILABLE, taken) if len(fake.batches) < 3 else None
    start()
    assert sorted(created(fake)) == sorted(NAMES)
    assert fake.requests == []


def test_of_a_batch_only_what_failed_is_made_again(backend, fake):
    waiting = set(NAMES[:12])

    def fault(request):
        name = request.task.name.rpartition("/")[2]
        if name in waiting:
            waiting.remove(name)
            return CODE.UNAVAILABLE, False
        return None

    fake.fault = fault
    start(NAMES[:100])
    assert sizes(fake) == [100, 12]
    assert len(fake.tasks) == 100


def test_a_batch_that_is_refused_as_a_whole_shows_one_by_one_why(backend, fake):
    fake.batch_fault = lambda request: (CODE.INVALID_ARGUMENT, False)
    fake.fault = lambda request: (CODE.INVALID_ARGUMENT, False) if request.task.name.endswith("t3") else None
    with pytest.raises(EnqueueError, match="19 of 20 tasks were created"):
        start(NAMES[:20])
    assert len(fake.tasks) == 19


def test_a_batch_that_does_not_end_is_given_up_in_the_end(backend, fake, monkeypatch):
    monkeypatch.setattr(service_module, "CALL_SECONDS", 0.5)
    monkeypatch.setattr("soc_tasks.backends.cloud_tasks.batches.WAIT_SECONDS", 0.2)
    fake.looks, fake.fault = 1_000_000, lambda request: (CODE.UNAVAILABLE, False)
    with pytest.raises(BackendUnavailableError, match="safe to call again"):
        start(NAMES[:20])
