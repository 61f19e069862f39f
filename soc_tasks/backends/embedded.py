"""The embedded backend: tasks are rows of the site's own database, and its own worker calls them (engine/)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from soc_tasks.backends.base import BaseBackend
from soc_tasks.conf import get_settings
from soc_tasks.engine import hooks
from soc_tasks.engine.clock import from_micros, to_micros
from soc_tasks.engine.records import MinuteRecord, QueueRecord, TaskRecord
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.base import Store
from soc_tasks.engine.store.enqueue import explain_taken
from soc_tasks.engine.tally import MINUTE
from soc_tasks.errors import NotSupportedError, TaskAlreadyExistsError
from soc_tasks.values import Task

if TYPE_CHECKING:
    from soc_tasks.backends.inspection import Inspector


class EmbeddedBackend(BaseBackend):
    """Keeps tasks on `SOC_TASKS["DATABASE"]`; those of another alias go there by an outbox.

    From an alias without our tables they go there after its commit (commits.py).
    """

    def __init__(self) -> None:
        register_hooks()

    @property
    def store(self) -> Store:
        """Return the store that holds the tasks."""
        return get_store(get_settings().database)

    def check_routing(self, task: Task) -> None:
        """Raise NotSupportedError unless the service is one of SERVICES, where the worker calls it by HTTP."""
        if task.version or task.instance:
            raise NotSupportedError(
                "The embedded backend knows no versions and instances; the backend cloud_tasks does."
            )
        if task.service is not None and task.service not in get_settings().services:
            raise NotSupportedError(
                f"The embedded backend knows no service {task.service!r}. To have the worker call it by HTTP, give its "
                "base URL in SOC_TASKS['SERVICES']."
            )

    def enqueue(self, tasks: Sequence[Task], using: str | None) -> None:
        """Take `tasks`, all or none, in the open transaction of `using` if there is one."""
        alias = get_settings().database
        elsewhere = using is not None and using != alias
        if elsewhere or any(task.named for task in tasks):
            self._check_names(tasks, using or alias)
        if not elsewhere:
            get_store(alias).add(tasks)
            return
        from soc_tasks.backends import commits, outbox
        from soc_tasks.state import transactions

        theirs = using or alias
        if outbox.can_hold(theirs):
            outbox.hold(tasks, theirs, self.accept)
        elif transactions.is_open(theirs):
            commits.follow(tasks, theirs, self.accept, behind=alias)
        else:
            get_store(alias).add(tasks)

    def _check_names(self, tasks: Sequence[Task], using: str) -> None:
        """Refuse chosen names that the store or an outbox knows."""
        from soc_tasks.backends import outbox

        if taken := [*self.store.find_taken(tasks), *outbox.find_taken(tasks, using)]:
            raise TaskAlreadyExistsError(explain_taken(taken))

    def accept(self, tasks: Sequence[Task]) -> None:
        """Take tasks of the outbox over; a name that is taken is a task that came already."""
        self.store.accept(tasks)

    def now(self) -> datetime:
        """Return the time by the engine's clock."""
        return from_micros(self.store.clock.now())

    def shares_transaction(self, alias: str) -> bool:
        """Tell whether a task enqueued in a transaction of `alias` commits with it: as a row here, or of its outbox."""
        from soc_tasks.state import get_state

        return alias in (get_settings().database, get_state().alias)

    def relay(self) -> int:
        """Hand over what waits in the outboxes."""
        from soc_tasks.backends import outbox

        return outbox.relay(self.accept)

    def inspect(self) -> Inspector:
        """Return what looks into the tables for the console."""
        from soc_tasks.backends.embedded_inspection import EmbeddedInspector

        return EmbeddedInspector(self)

    # What commands ask.

    def list_queues(self, most: int | None = None) -> list[QueueRecord]:
        """Return the queues that have tasks or a state, by name."""
        return self.store.list_queues(most)

    def list_heartbeats(self) -> list[datetime]:
        """Return when each worker was last seen."""
        return [from_micros(beat) for beat in self.store.list_heartbeats()]

    def list_minutes(self, since: datetime) -> list[MinuteRecord]:
        """Return what came of attempts by minute."""
        micros = to_micros(since)
        return self.store.list_minutes(micros - micros % MINUTE)

    def list_tasks(self, queue: str | None = None, *, limit: int = 100) -> list[TaskRecord]:
        """Return tasks without their bodies: running ones, then by when they are due."""
        return self.store.list_tasks(queue, limit=limit)

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task, or None."""
        return self.store.get_task(queue, name)

    def run_now(self, queue: str, name: str) -> bool:
        """Run a task at once, past pause and rates; False: there is none that waits."""
        return self.store.run_now(queue, name)

    def delete_task(self, queue: str, name: str) -> bool:
        """Delete a task, running or not; its chosen name stays taken for a while. False: there is none."""
        return self.store.delete(queue, name)

    def pause(self, queue: str) -> None:
        """Keep a queue's tasks back until it is resumed."""
        self.store.set_paused(queue, True)

    def resume(self, queue: str) -> None:
        """Let a paused queue run again."""
        self.store.set_paused(queue, False)

    def purge(self, queue: str) -> int:
        """Delete the tasks that are in a queue now; return how many there were."""
        return self.store.purge(queue)


def register_hooks() -> None:
    """Tell the engine who keeps dead letters, hands outboxes over, sweeps, and knows how far a slice has come."""
    hooks.register(exhausted=_exhausted, upkeep=_relay, sweep=_sweep, progress=_progress)


def _exhausted(task: Task, attempts: int, status: int) -> None:
    from soc_tasks.state import get_state

    get_state().task_exhausted(task, attempts, status)


def _relay() -> None:
    from soc_tasks.backends import get_backend

    get_backend().relay()


def _sweep() -> bool:
    from soc_tasks.state import get_state

    return get_state().sweep() > 0


def _progress(task: Task) -> str:
    from soc_tasks.state import get_state

    return get_state().task_progress(task)
