"""The task queues of a test, and test cases that have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from http import HTTPStatus
from typing import Any

from django.test import TestCase, TransactionTestCase

from soc_tasks.backends import backend_in_place
from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.logic.held_back import connections_kept
from soc_tasks.meta import read_meta
from soc_tasks.testing.deliveries import has_failed, make_delivery, make_dispatcher, memory_backend
from soc_tasks.testing.resumability import Resumability, assert_resumable
from soc_tasks.values import Task


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
        backend = memory_backend()
        backend.collect()
        # The tasks are kept beside their ids: a new one could get the id of one that is gone.
        known = {id(task): task for task in backend.tasks}
        dispatch = make_dispatcher()
        with connections_kept():
            while task := _take_next(backend, queue_name, known):
                self._run(backend, dispatch, task, behaviour)
                backend.collect()

    def flush_task_queues(self, queue_name: str | None = None) -> None:
        """Forget the queued tasks.

        Args:
            queue_name: only of this queue; None: all, and the names that were used.
        """
        backend = memory_backend()
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
        backend = memory_backend()
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

    def assert_resumable(
        self,
        start: Any,
        *args: Any,
        read_state: Callable[[], Any] | None = None,
        ignore: Iterable[str] = (),
        interruptions: int = 100,
        **kwargs: Any,
    ) -> Resumability:
        """Fail unless what is started ends the same, however it is disturbed.

        It is run undisturbed, then from the same beginning interrupted after every item and every write, with each
        delivery doubled, and in random orders. The database, the queues and the mails are in the end as they were.

        Args:
            start: a task view or the name of its URL pattern, for `startTask`; a queryset, for
                `defer_iteration_with_finalize`; or a function that starts something.
            args, kwargs: what that is called with.
            read_state: returns what must be the same in the end; None: all tables but soc_tasks' own, and the mails.
            ignore: models and columns to leave out, as `app_label.Model` and `app_label.Model.field`.
            interruptions: how many are tried at most; where there could be more, a sample of always the same.

        Returns:
            At how many moments it could be interrupted, and at how many it was.

        Raises:
            AssertionError: it ends differently; the message says when, which rows, and what helps.
            TypeError, ValueError: it is not one of these, or names what is not there.
        """
        return assert_resumable(
            memory_backend(),
            start,
            args,
            kwargs,
            read_state=read_state,
            ignore=ignore,
            interruptions=interruptions,
        )

    def _run(
        self, backend: MemoryBackend, dispatch: InProcessDispatcher, task: Task, behaviour: TaskFailedBehaviour
    ) -> None:
        attempts, previous = 0, None
        while True:
            delivery = make_delivery(task, attempts, previous)
            answer = dispatch(task, delivery)
            backend.collect()
            if not has_failed(answer, delivery):
                return
            error = delivery.failures[-1] if delivery.failures else None
            if behaviour is TaskFailedBehaviour.RAISE_ERROR:
                raise TaskFailedError(task.name, answer.status, error, task.path) from error
            if answer.outcome == "dead" and delivery.is_last_attempt and behaviour is TaskFailedBehaviour.RETRY_TASK:
                raise TaskFailedError(task.name, answer.status, error, task.path) from error
            # A task that is done with, though it failed, is not tried again: a dead letter, or work handed over.
            if behaviour is TaskFailedBehaviour.DO_NOTHING or 200 <= answer.status < 300:
                return
            attempts, previous = attempts + 1, answer.status
            if attempts > self.max_task_retry_count:
                raise TaskFailedError(task.name, answer.status, error, task.path) from error


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
