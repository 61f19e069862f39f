"""Tools to test tasks with: no server, no port, no emulator, no waiting.

Tasks are kept in memory and run when `process_task_queues()` says so: in this process and thread, through the URL conf
and the middleware, whatever their eta. Under TestCase, whose transaction never commits, what would have been committed
counts as committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from http import HTTPStatus
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.test import TestCase, TransactionTestCase

from soc_tasks.backends import backend_in_place, get_backend
from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.conf import get_queues
from soc_tasks.engine.attempts import DEFAULT_DEADLINE
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.errors import ConfigurationError
from soc_tasks.logic.held_back import connections_kept
from soc_tasks.meta import read_meta
from soc_tasks.values import DEFAULT_RETRY, Answer, Delivery, Task


class TaskFailedBehaviour(IntEnum):
    """What `process_task_queues` does about a task that fails."""

    DO_NOTHING = 0
    RETRY_TASK = 1
    RAISE_ERROR = 2


class TaskFailedError(Exception):
    """A task failed.

    Attributes:
        task_name: its name.
        status_code: what its view answered.
        original_exception: what it raised, or None; the cause as well.
    """

    def __init__(
        self, task_name: str, status_code: int, original_exception: BaseException | None = None, path: str = ""
    ) -> None:
        where = f" ({path})" if path else ""
        how = f"{original_exception!r}, answered with {status_code}" if original_exception else f"status {status_code}"
        super().__init__(f"Task {task_name}{where} failed{' for good' if status_code == HTTPStatus.OK else ''}: {how}.")
        self.task_name = task_name
        self.status_code = status_code
        self.original_exception = original_exception


class _Handler(WSGIHandler):
    """Django's handler, but the test's own database connections stay as they are, as with Django's test client."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        with connections_kept():
            return super().__call__(environ, start_response)


class TaskQueues:
    """The task queues of a test."""

    #: How often a task is tried with `TaskFailedBehaviour.RETRY_TASK` before it counts as failed.
    max_task_retry_count = 100

    def process_task_queues(
        self,
        queue_name: str | None = None,
        failure_behaviour: TaskFailedBehaviour = TaskFailedBehaviour.RAISE_ERROR,
    ) -> None:
        """Run the queued tasks, and those that they queue, until none is left; eta is ignored.

        What `repeat_in` starts during the call stays queued, and so does what a throttle holds back.

        Args:
            queue_name: only this queue; None: all.
            failure_behaviour: what to do about a task that fails.

        Raises:
            TaskFailedError: a task failed, with RAISE_ERROR, or at its last attempt, with RETRY_TASK.
        """
        behaviour = TaskFailedBehaviour(failure_behaviour)
        backend = _memory_backend()
        backend.collect()
        # The tasks are kept beside their ids: a new one could get the id of one that is gone.
        known = {id(task): task for task in backend.tasks}
        dispatch = InProcessDispatcher(_Handler())
        with connections_kept():
            while task := _take_next(backend, queue_name, known):
                self._run(backend, dispatch, task, behaviour)
                backend.collect()

    def flush_task_queues(self, queue_name: str | None = None) -> None:
        """Forget the queued tasks.

        Args:
            queue_name: only of this queue; None: all, and the names that were used.
        """
        backend = _memory_backend()
        if queue_name is None:
            backend.clear()
        else:
            backend.collect()
            backend.tasks[:] = [task for task in backend.tasks if task.queue != queue_name]

    def get_task_count(self, queue_name: str | None = None) -> int:
        """Return how many tasks are queued.

        Args:
            queue_name: only in this queue; None: in all.
        """
        backend = _memory_backend()
        backend.collect()
        return sum(1 for task in backend.tasks if queue_name in (None, task.queue))

    def assertNumTasksEquals(self, num: int, queue_name: str | None = None) -> None:
        """Fail unless exactly `num` tasks are queued.

        Args:
            num: the number expected.
            queue_name: only in this queue; None: in all.
        """
        count = self.get_task_count(queue_name)
        where = "all queues" if queue_name is None else f"queue {queue_name!r}"
        if count != num:
            raise AssertionError(f"{num} tasks should be in {where}, and there are {count}.")

    def _run(
        self, backend: MemoryBackend, dispatch: InProcessDispatcher, task: Task, behaviour: TaskFailedBehaviour
    ) -> None:
        retry = (task.retry.over(_queue_retry(task)) if task.retry else _queue_retry(task)).over(DEFAULT_RETRY)
        attempts, previous = 0, None
        while True:
            last = retry.max_attempts is not None and 0 < retry.max_attempts <= attempts + 1
            delivery = Delivery(
                queue=task.queue,
                name=task.name,
                retry_count=attempts,
                execution_count=attempts,
                eta=task.eta or task.created,
                previous_status=previous,
                is_last_attempt=last,
                deadline=time.monotonic() + (task.dispatch_deadline or DEFAULT_DEADLINE),
            )
            answer = dispatch(task, delivery)
            backend.collect()
            if not _has_failed(answer, delivery):
                return
            error = delivery.failures[-1] if delivery.failures else None
            if behaviour is TaskFailedBehaviour.RAISE_ERROR:
                raise TaskFailedError(task.name, answer.status, error, task.path) from error
            if answer.outcome == "dead" and last and behaviour is TaskFailedBehaviour.RETRY_TASK:
                raise TaskFailedError(task.name, answer.status, error, task.path) from error
            # A task that is done with, though it failed, is not tried again: a dead letter, or work handed over.
            if behaviour is TaskFailedBehaviour.DO_NOTHING or 200 <= answer.status < 300:
                return
            attempts, previous = attempts + 1, answer.status
            if attempts > self.max_task_retry_count:
                raise TaskFailedError(task.name, answer.status, error, task.path) from error


def _has_failed(answer: Answer, delivery: Delivery) -> bool:
    return not 200 <= answer.status < 300 or bool(delivery.failures)


def _queue_retry(task: Task) -> Any:
    queue = get_queues().get(task.queue)
    return DEFAULT_RETRY if queue is None else queue.retry


def _take_next(backend: MemoryBackend, queue_name: str | None, known: Mapping[int, Task]) -> Task | None:
    for index, task in enumerate(backend.tasks):
        if queue_name not in (None, task.queue):
            continue
        if id(task) not in known:
            meta = read_meta(task)
            if meta is not None and (meta.repeat or meta.held):
                continue
        return backend.tasks.pop(index)
    return None


def _memory_backend() -> MemoryBackend:
    backend = get_backend()
    if not isinstance(backend, MemoryBackend):
        raise ConfigurationError(
            f"The test tools work on the memory backend, not on {type(backend).__name__}: use TaskTestCase, "
            "TaskTransactionTestCase or the fixture task_queues."
        )
    return backend


@contextmanager
def memory_queues() -> Iterator[TaskQueues]:
    """Switch to the memory backend, and give its queues."""
    with backend_in_place(MemoryBackend()):
        queues = TaskQueues()
        try:
            yield queues
        finally:
            queues.flush_task_queues()


class TaskTestMixin(TaskQueues):
    """Gives a test case task queues of its own; goes before the test case class."""

    @classmethod
    def setUpClass(cls) -> None:
        """Switch the backend before class data is made."""
        cls.enterClassContext(memory_queues())  # type: ignore[attr-defined] # of the test case beside it
        super().setUpClass()  # type: ignore[misc]

    def setUp(self) -> None:
        """Begin with empty queues."""
        super().setUp()  # type: ignore[misc]
        self.flush_task_queues()


class TaskTestCase(TaskTestMixin, TestCase):
    """A TestCase with task queues."""


class TaskTransactionTestCase(TaskTestMixin, TransactionTestCase):
    """A TransactionTestCase with task queues."""
