"""A backend for tests: tasks wait in a list of this process and run when the test says so.

Inside an atomic block a task waits for the commit. Under Django's TestCase, whose own transaction never commits, what
would have been committed counts: Django keeps its on-commit hooks by savepoint, and drops those of a rollback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db import connections

from soc_tasks.backends.base import BaseBackend
from soc_tasks.engine.records import QueueRecord, TaskRecord
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.state import get_state, transactions
from soc_tasks.values import Task

if TYPE_CHECKING:
    from soc_tasks.backends.inspection import Inspector


class Pending:
    """Tasks of an open transaction; called by Django when it commits."""

    def __init__(self, backend: MemoryBackend, tasks: list[Task]) -> None:
        self.backend = backend
        self.tasks = tasks

    def __call__(self) -> None:
        """Queue the tasks, once."""
        tasks, self.tasks = self.tasks, []
        self.backend.tasks.extend(tasks)


class MemoryBackend(BaseBackend):
    """Keeps tasks in order of arrival.

    Attributes:
        tasks: what is queued and committed.
        names: the chosen names that were used, by queue.
    """

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.names: set[tuple[str, str]] = set()

    def enqueue(self, tasks: Sequence[Task], using: str | None) -> None:
        """Take `tasks`, at once or with the open transaction of `using`."""
        alias = using or get_state().alias
        self.collect()
        taken = self.names | {(task.queue, task.name) for task in self._waiting() if task.named}
        for task in tasks:
            if task.named and (task.queue, task.name) in taken:
                raise TaskAlreadyExistsError(
                    f"The name {task.name!r} was used before in queue {task.queue!r}. This backend is for tests: "
                    "names come free with flush_task_queues() alone."
                )
            taken.add((task.queue, task.name))
        if transactions.is_open(alias):
            transactions.on_commit(alias, Pending(self, list(tasks)))
        else:
            self.tasks.extend(tasks)

    def list_queues(self, most: int | None = None) -> list[QueueRecord]:
        """Return the queues that have tasks, by name."""
        self.collect()
        now = self.now()
        records = []
        for name in sorted({task.queue for task in self.tasks}):
            moments = [task.eta or task.created for task in self.tasks if task.queue == name]
            due = [moment for moment in moments if moment <= now]
            scheduled = len(moments) - len(due)
            records.append(QueueRecord(name=name, due=len(due), scheduled=scheduled, oldest=min(due, default=None)))
        return records

    def list_tasks(self, queue: str | None = None, *, limit: int = 100) -> list[TaskRecord]:
        """Return tasks without their bodies, by when they are due."""
        self.collect()
        found = [task for task in self.tasks if queue in (None, task.queue)]
        found.sort(key=lambda task: task.eta or task.created)
        return [_record(replace(task, body=b"")) for task in found[:limit]]

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task, or None."""
        self.collect()
        return next((_record(task) for task in self.tasks if (task.queue, task.name) == (queue, name)), None)

    def delete_task(self, queue: str, name: str) -> bool:
        """Delete a task; False: there is none."""
        self.collect()
        before = len(self.tasks)
        self.tasks = [task for task in self.tasks if (task.queue, task.name) != (queue, name)]
        return len(self.tasks) < before

    def purge(self, queue: str) -> int:
        """Delete the tasks that are in a queue now; return how many there were."""
        self.collect()
        before = len(self.tasks)
        self.tasks = [task for task in self.tasks if task.queue != queue]
        return before - len(self.tasks)

    def inspect(self) -> Inspector:
        """Return what the console looks into the list with."""
        from soc_tasks.backends.inspection import Inspector

        return Inspector(
            self,
            'SOC_TASKS["BACKEND"] is "memory": what is shown waits in a list of this process until a test runs it, and '
            "is lost with it.",
        )

    def shares_transaction(self, alias: str) -> bool:
        """Tell that a task commits with any alias: nothing outlives the process here."""
        return True

    def collect(self) -> None:
        """Queue what is committed, or would be but for the transaction of a TestCase."""
        for pending in self._pending(committed=True):
            pending()
        self.names.update((task.queue, task.name) for task in self.tasks if task.named)

    def clear(self) -> None:
        """Forget all tasks and names, also those of open transactions."""
        for pending in self._pending(committed=False):
            pending.tasks = []
        self.tasks.clear()
        self.names.clear()

    def _waiting(self) -> Iterator[Task]:
        yield from self.tasks
        for pending in self._pending(committed=False):
            yield from pending.tasks

    @staticmethod
    def _pending(*, committed: bool) -> list[Pending]:
        found = []
        connection: Any  # run_on_commit and atomic_blocks are not in the stubs as they are
        for connection in connections.all(initialized_only=True):
            open_savepoints = _open_savepoints(connection)
            for savepoints, hook, _ in connection.run_on_commit:
                if not isinstance(hook, Pending):
                    continue
                if not committed or (open_savepoints is not None and not savepoints & open_savepoints):
                    found.append(hook)
        if not committed:
            found += [hook for hook in transactions.find_hooks(django=False) if isinstance(hook, Pending)]
        return found


def _record(task: Task) -> TaskRecord:
    return TaskRecord(task=task, state="waiting", due=task.eta or task.created)


def _open_savepoints(connection: Any) -> set[str | None] | None:
    """Return the savepoints that the code under test has open; None if its outermost block is a real transaction."""
    blocks = connection.atomic_blocks
    outer = sum(1 for block in blocks if block._from_testcase)
    if outer == 0:
        return None if blocks else set()
    # The outermost block opens a transaction, each further one a savepoint (or None, where it asked for none).
    return set(connection.savepoint_ids[outer - 1 :])
