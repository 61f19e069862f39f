"""The backend on Google Cloud Tasks: tasks are created at once, or in an atomic block kept in the outbox of that."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.conf import settings as django_settings
from django.db import connections

from soc_tasks.backends import commits, outbox
from soc_tasks.backends.base import BaseBackend
from soc_tasks.backends.cloud_tasks.errors import ServiceError, translate
from soc_tasks.backends.cloud_tasks.service import EMULATOR_VARIABLE, get_service
from soc_tasks.backends.cloud_tasks.steering import Steering
from soc_tasks.backends.cloud_tasks.wire import wire_name, write_request
from soc_tasks.conf import get_queues, get_settings
from soc_tasks.engine.records import QueueRecord, TaskRecord
from soc_tasks.errors import ConfigurationError, EnqueueError, NotSupportedError, TaskAlreadyExistsError
from soc_tasks.state import get_state, transactions
from soc_tasks.values import Task

if TYPE_CHECKING:
    from soc_tasks.backends.inspection import Inspector

logger = logging.getLogger("soc_tasks")

#: Seconds between two looks at the outboxes by a process that enqueues.
RELAY_EVERY: Final = 60.0
#: For how long what the service tells of its queues is not asked again: a console that many look at stays cheap.
QUEUES_EVERY: Final = 5.0
#: What a server that stands for the service is asked for where the settings do not say.
_LOCAL: Final = {"CLOUD_TASKS_PROJECT_ID": "demo", "CLOUD_TASKS_LOCATION": "local"}


class CloudTasksBackend(BaseBackend):
    """Hands tasks to Google Cloud Tasks, or to the server that `TASKS_EMULATOR_HOST` names."""

    supports_routing: ClassVar[bool] = True
    remembers_names: ClassVar[bool] = True

    def __init__(self) -> None:
        self._relay_at = time.monotonic() + RELAY_EVERY
        #: The queues as the service told of them: of what location and settings, until when, and the answer.
        self._queues: tuple[Any, float, list[QueueRecord]] | None = None

    def check_routing(self, task: Task) -> None:
        """Raise NotSupportedError where an HTTP target has no such place: it is a URL, of this site or of SERVICES."""
        settings = get_settings()
        if settings.target == "app_engine":
            return
        if task.version or task.instance:
            raise NotSupportedError("HTTP targets have no versions and instances; those of App Engine do.")
        if task.service is not None and task.service not in settings.services:
            raise NotSupportedError(
                f"There is no service {task.service!r}. To have Cloud Tasks call it, give its base URL in "
                "SOC_TASKS['SERVICES']."
            )

    def enqueue(self, tasks: Sequence[Task], using: str | None) -> None:
        """Create tasks, or keep them with the open transaction of `using`.

        Raises:
            EnqueueError: the service did not take all of them; `results` says what became of each.
        """
        # Before anything is written: what the service would refuse is refused here.
        requests = [write_request(task, queue_path(task.queue)) for task in tasks]
        alias = using or get_state().alias
        # The service would take what is to be made now, and with it the name from what waits for a commit.
        if taken := outbox.find_taken(tasks, alias):
            names = ", ".join(f"{task.name!r} in queue {task.queue!r}" for task in taken[:5])
            raise TaskAlreadyExistsError(f"These names wait in the outbox already, or stand here twice: {names}.")
        if transactions.is_open(alias):
            if outbox.can_hold(alias):
                outbox.hold(tasks, alias, self.accept)
            else:
                commits.follow(tasks, alias, self.accept)
            if self._is_relay_due():
                # Not before: the relay writes what this transaction may hold a lock on.
                transactions.on_commit(alias, self._relay_now_and_then)
            return
        results = [
            translate(result, task.queue, describe(task)) if isinstance(result, ServiceError) else None
            for task, result in zip(tasks, get_service().create(requests), strict=True)
        ]
        self._relay_now_and_then()
        _raise_first(results)

    def shares_transaction(self, alias: str) -> bool:
        """Tell whether a task enqueued in a transaction of `alias` commits with it: its row of the outbox does."""
        return alias in get_state().outbox_aliases()

    def _is_relay_due(self) -> bool:
        return time.monotonic() >= self._relay_at

    def _relay_now_and_then(self) -> None:
        """Hand on, beside the call that is under way, what processes that died have left in the outboxes."""
        if not self._is_relay_due():
            return
        self._relay_at = time.monotonic() + RELAY_EVERY
        threading.Thread(target=self._relay_apart, name="soc_tasks-relay", daemon=True).start()

    def _relay_apart(self) -> None:
        try:
            self.relay()
        except Exception:
            logger.exception("the relay failed; it is tried again")
        finally:
            connections.close_all()

    def accept(self, tasks: Sequence[Task]) -> dict[int, Exception]:
        """Take tasks of the outbox over; return those that the service did not take, by their place."""
        refused: dict[int, Exception] = {}
        requests: dict[int, Any] = {}
        for number, task in enumerate(tasks):
            try:
                requests[number] = write_request(task, queue_path(task.queue))
            except EnqueueError as error:
                refused[number] = error
        for number, result in zip(requests, get_service().create(list(requests.values())), strict=True):
            # A name that is taken: this task was created before, by somebody who could not say so any more.
            if isinstance(result, ServiceError) and result.code != "ALREADY_EXISTS":
                refused[number] = translate(result, tasks[number].queue, describe(tasks[number]))
        return refused

    def relay(self) -> int:
        """Hand over what waits in the outboxes."""
        return outbox.relay(self.accept)

    # What commands and the console ask.

    @property
    def _steering(self) -> Steering:
        return Steering(get_service(), location_path())

    def list_queues(self, most: int | None = None) -> list[QueueRecord]:
        """Return those of the settings' queues that the service knows, asked for every few seconds at most."""
        key, now = (location_path(), get_queues()), time.monotonic()
        if self._queues is None or self._queues[0] != key or now >= self._queues[1]:
            self._queues = (key, now + QUEUES_EVERY, self._steering.list_queues())
        return list(self._queues[2])

    def list_tasks(self, queue: str | None = None, *, limit: int = 100) -> list[TaskRecord]:
        """Return tasks without their bodies: of each queue the first that the service lists, by when they are due."""
        return self._steering.list_tasks(queue, limit)

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task, or None."""
        return self._steering.get_task(queue, name)

    def has_task(self, task: Task) -> bool:
        """Tell whether the service has a task."""
        return self._steering.has_task(task.queue, wire_name(task))

    def run_now(self, queue: str, name: str) -> bool:
        """Run a task at once, past pause and rates; False: there is none."""
        return self._steering.run_now(queue, name)

    def delete_task(self, queue: str, name: str) -> bool:
        """Delete a task; False: there is none."""
        return self._steering.delete_task(queue, name)

    def pause(self, queue: str) -> None:
        """Keep a queue's tasks back until it is resumed."""
        self._queues = None
        self._steering.pause(queue)

    def resume(self, queue: str) -> None:
        """Let a paused queue run again."""
        self._queues = None
        self._steering.resume(queue)

    def purge(self, queue: str) -> None:
        """Delete the tasks that are in a queue now; nobody counts them."""
        self._steering.purge(queue)

    def inspect(self) -> Inspector:
        """Return what looks into the queues by the API."""
        from soc_tasks.backends.cloud_tasks.inspection import CloudInspector

        return CloudInspector(self)


def _raise_first(results: Sequence[Exception | None]) -> None:
    """Raise the first error of many, with all of them."""
    failed = [error for error in results if error is not None]
    if not failed:
        return
    error = failed[0]
    if len(results) > 1:
        error = type(error)(
            f"{len(results) - len(failed)} of {len(results)} tasks were created, {len(failed)} were not; "
            f"the first of these: {error}"
        )
    error.results = list(results)  # type: ignore[attr-defined]
    raise error


def describe(task: Task) -> str:
    """Return how messages call a task."""
    return f"the task {task.name!r} for {task.path}"


def queue_path(queue: str) -> str:
    """Return the full name of a queue.

    Raises:
        ConfigurationError: the settings name no project or location.
    """
    return f"{location_path()}/queues/{queue}"


def location_path() -> str:
    """Return the full name of the location that holds the queues.

    Raises:
        ConfigurationError: the settings name no project or location.
    """
    project = (
        _find("CLOUD_TASKS_PROJECT_ID") or os.environ.get("GOOGLE_CLOUD_PROJECT") or _local("CLOUD_TASKS_PROJECT_ID")
    )
    location = _find("CLOUD_TASKS_LOCATION") or _local("CLOUD_TASKS_LOCATION")
    return f"projects/{project}/locations/{location}"


def _find(name: str) -> str | None:
    value = getattr(django_settings, name, None)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a str, not {value!r}.")
    return value


def _local(name: str) -> str:
    if not os.environ.get(EMULATOR_VARIABLE):
        hint = " (or the environment, GOOGLE_CLOUD_PROJECT)" if name == "CLOUD_TASKS_PROJECT_ID" else ""
        raise ConfigurationError(f"The settings{hint} must say {name} for the backend cloud_tasks.")
    return _LOCAL[name]
