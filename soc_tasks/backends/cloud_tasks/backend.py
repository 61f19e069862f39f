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
from soc_tasks.backends.cloud_tasks.wire import write_request
from soc_tasks.conf import get_settings
from soc_tasks.errors import ConfigurationError, EnqueueError, NotSupportedError, TaskAlreadyExistsError
from soc_tasks.state import get_state, transactions
from soc_tasks.values import Task

if TYPE_CHECKING:
    from soc_tasks.backends.inspection import Inspector

logger = logging.getLogger("soc_tasks")

#: Seconds between two looks at the outboxes by a process that enqueues.
RELAY_EVERY: Final = 60.0
#: What a server that stands for the service is asked for where the settings do not say.
_LOCAL: Final = {"CLOUD_TASKS_PROJECT_ID": "demo", "CLOUD_TASKS_LOCATION": "local"}


class CloudTasksBackend(BaseBackend):
    """Hands tasks to Google Cloud Tasks, or to the server that `TASKS_EMULATOR_HOST` names."""

    supports_routing: ClassVar[bool] = True
    remembers_names: ClassVar[bool] = True

    def __init__(self) -> None:
        self._relay_at = time.monotonic() + RELAY_EVERY

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

    def inspect(self) -> Inspector:
        """Return what looks into the queues by the API."""
        from soc_tasks.backends.cloud_tasks.inspection import CloudInspector

        return CloudInspector()


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
