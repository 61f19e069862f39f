"""The contract of a backend: it takes tasks, and calls them back as POSTs, at least once each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from soc_tasks import signals
from soc_tasks.conf import get_queues
from soc_tasks.engine.records import MinuteRecord, QueueRecord, TaskRecord
from soc_tasks.errors import (
    EnqueueError,
    NotSupportedError,
    QueueNotFoundError,
    TaskTooLargeError,
)
from soc_tasks.state.transactions import find_alias
from soc_tasks.values import Task

if TYPE_CHECKING:
    from soc_tasks.backends.inspection import Inspector

#: The largest serialized task that Cloud Tasks accepts (recorded byte-exact from the service); the same everywhere.
MAX_TASK_BYTES = 1_048_569

#: Takes over tasks that have committed; a name that is taken already counts as success. Returns those that were not
#: taken, by their place in the sequence, with what is wrong with each; what it raises is true of all.
Accept = Callable[[Sequence[Task]], Mapping[int, Exception] | None]


class RefusedForGoodError(EnqueueError):
    """A queue does not take a task, and never will."""


class BaseBackend(ABC):
    """Takes tasks. Subclasses write `enqueue`; `submit` does what is the same for all."""

    #: Whether `service`, `version` and `instance` mean something here.
    supports_routing: ClassVar[bool] = False
    #: Whether a name that nobody chose stays taken for a while after its task has ended.
    remembers_names: ClassVar[bool] = False

    def submit(self, tasks: Sequence[Task], using: Any = None) -> None:
        """Check `tasks`, hand them over, and tell those who listen.

        Args:
            tasks: what is to be queued; all or none.
            using: database alias, or client of Datastore, whose open transaction the tasks belong to; None: the
                backend's own.

        Raises:
            TaskTooLargeError: a task is over 1,048,569 bytes.
            QueueNotFoundError: a queue does not exist.
            TaskAlreadyExistsError: a chosen name is taken.
            NotSupportedError: a task asks for routing where there is none.
            ConfigurationError: `using` is none of these.
        """
        using = None if using is None else find_alias(using)
        for task in tasks:
            self.check_queue(task.queue)
            size = len(task.path) + len(task.body) + sum(len(k) + len(v) for k, v in task.headers.items())
            if size > MAX_TASK_BYTES:
                raise TaskTooLargeError(
                    f"The task for {task.path} has {size:,} bytes; a queue takes at most {MAX_TASK_BYTES:,}. "
                    "Keep the data in the database and pass its key."
                )
            self.check_routing(task)
        self.enqueue(tasks, using)
        signals.tell_enqueued(type(self), tasks)

    def check_queue(self, name: str) -> None:
        """Raise QueueNotFoundError unless the queue `name` exists."""
        if not isinstance(name, str) or name not in get_queues():
            raise QueueNotFoundError(
                f"There is no queue {name!r}. Known are {', '.join(sorted(get_queues()))}; "
                f'for another, add {{"name": {name!r}}} to CLOUD_TASKS_QUEUES in the settings.'
            )

    def check_routing(self, task: Task) -> None:
        """Raise NotSupportedError unless the backend can send a task where it is to run."""
        if not self.supports_routing and (task.service or task.version or task.instance):
            raise NotSupportedError(
                f"{type(self).__name__} runs tasks in this service only: service, version and instance "
                "need the backend cloud_tasks."
            )

    @abstractmethod
    def enqueue(self, tasks: Sequence[Task], using: str | None) -> None:
        """Take `tasks`, all or none; inside an atomic block of `using` they exist if and only if it commits."""

    def now(self) -> datetime:
        """Return the time by the clock that says what is due: that of this machine, where there is no other."""
        return datetime.now(UTC)

    def shares_transaction(self, alias: str) -> bool:
        """Tell whether a task enqueued in a transaction of `alias` commits with it."""
        return False

    def relay(self) -> int:
        """Hand over what waits in the outboxes; return how many tasks that were."""
        return 0

    # What commands and the console ask. A backend that cannot tell or do something raises NotSupportedError.

    def list_queues(self, most: int | None = None) -> list[QueueRecord]:
        """Return the queues that have tasks or a state, by name.

        Args:
            most: up to where tasks are counted, of each kind; None: all are.
        """
        raise self._cannot("list queues")

    def list_tasks(self, queue: str | None = None, *, limit: int = 100) -> list[TaskRecord]:
        """Return tasks without their bodies: running ones, then by when they are due."""
        raise self._cannot("list tasks")

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task, or None."""
        raise self._cannot("show tasks")

    def has_task(self, task: Task) -> bool:
        """Tell whether a task is there, waiting or under way.

        Raises:
            EnqueueError: nobody can tell now.
        """
        return self.get_task(task.queue, task.name) is not None

    def run_now(self, queue: str, name: str) -> bool:
        """Run a task at once, past pause and rates; False: there is none that waits."""
        raise self._cannot("run a task at once")

    def delete_task(self, queue: str, name: str) -> bool:
        """Delete a task, running or not; False: there is none."""
        raise self._cannot("delete tasks")

    def pause(self, queue: str) -> None:
        """Keep a queue's tasks back until it is resumed."""
        raise self._cannot("pause queues")

    def resume(self, queue: str) -> None:
        """Let a paused queue run again."""
        raise self._cannot("resume queues")

    def purge(self, queue: str) -> int | None:
        """Delete the tasks that are in a queue now; return how many there were, or None where nobody counts."""
        raise self._cannot("purge queues")

    def list_heartbeats(self) -> list[datetime] | None:
        """Return when each worker was last seen; None: whoever runs the tasks is none of ours."""
        return None

    def list_minutes(self, since: datetime) -> list[MinuteRecord] | None:
        """Return what came of attempts by minute, from that of `since` on; None: nobody counts."""
        return None

    def inspect(self) -> Inspector:
        """Return what the console looks into its queues with."""
        from soc_tasks.backends.inspection import Inspector

        return Inspector(self)

    def _cannot(self, what: str) -> NotSupportedError:
        return NotSupportedError(f"{type(self).__name__} cannot {what}.")
