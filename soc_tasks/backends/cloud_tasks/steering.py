"""Queues and tasks at the service as people see and steer them: through its API, a call or a few for each question.

The API counts nothing: how many tasks a queue holds is known to Google's console alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from soc_tasks.backends.cloud_tasks.service import Service
from soc_tasks.conf import get_queues
from soc_tasks.engine.records import QueueRecord, TaskRecord
from soc_tasks.errors import BackendUnavailableError, QueueNotFoundError
from soc_tasks.meta import read_meta
from soc_tasks.values import Task

#: The service's texts hold the answer's status.
_STATUS: Final = re.compile(r"HTTP status code (\d{3})")
#: Tasks of a page, at most (ListTasksRequest.page_size).
_PAGE: Final = 1000


class Steering:
    """Asks and tells the service.

    Args:
        service: the connection.
        parent: full name of the location.
    """

    def __init__(self, service: Service, parent: str) -> None:
        self._client = service.client
        self._parent = parent

    def _queue(self, name: str) -> str:
        return f"{self._parent}/queues/{name}"

    def list_queues(self) -> list[QueueRecord]:
        """Return those of the settings' queues that the service knows."""
        with translated("read the queues", "roles/cloudtasks.viewer"):
            found = {queue.name.rpartition("/")[2]: queue for queue in self._client.list_queues(parent=self._parent)}
        return [
            QueueRecord(
                name=name,
                # Disabled ones, too, dispatch nothing.
                paused=found[name].state.name in ("PAUSED", "DISABLED"),
                due=None,
                scheduled=None,
                running=None,
                purged=read_moment(found[name], "purge_time"),
            )
            for name in sorted(get_queues())
            if name in found
        ]

    def list_tasks(self, queue: str | None, limit: int) -> list[TaskRecord]:
        """Return tasks without their bodies: of each queue the first that the service lists, by when they are due."""
        records: list[TaskRecord] = []
        for name in [queue] if queue is not None else sorted(get_queues()):
            with translated(f"list the tasks of the queue {name!r}", "roles/cloudtasks.viewer", name):
                request = {"parent": self._queue(name), "page_size": min(limit, _PAGE)}
                for number, task in enumerate(self._client.list_tasks(request=request)):
                    if number == limit:
                        break
                    records.append(read_task(task, name))
        records.sort(key=lambda record: (record.state != "running", record.due, record.task.name))
        return records[:limit]

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task with its body, or None."""
        from google.cloud.tasks_v2 import Task as Message

        found = self._try_names(
            queue,
            name,
            lambda path: self._client.get_task(request={"name": path, "response_view": Message.View.FULL}),
            "show the task",
            "roles/cloudtasks.admin",
        )
        return None if found is None else read_task(found, queue)

    def has_task(self, queue: str, name: str) -> bool:
        """Tell whether there is a task of this very id; its body is not read, which would take a greater role."""
        from google.api_core.exceptions import NotFound

        with translated(f"look for the task {name!r}", "roles/cloudtasks.viewer"):
            try:
                self._client.get_task(name=f"{self._queue(queue)}/tasks/{name}")
            except NotFound:
                return False
        return True

    def run_now(self, queue: str, name: str) -> bool:
        """Have a task called at once."""
        return self._tell(queue, name, self._client.run_task, "run the task", "roles/cloudtasks.taskRunner")

    def delete_task(self, queue: str, name: str) -> bool:
        """Delete a task."""
        return self._tell(queue, name, self._client.delete_task, "delete the task", "roles/cloudtasks.taskDeleter")

    def _tell(self, queue: str, name: str, call: Callable[..., Any], what: str, role: str) -> bool:
        return self._try_names(queue, name, lambda path: (call(name=path),), what, role) is not None

    def _try_names(self, queue: str, name: str, call: Callable[[str], Any], what: str, role: str) -> Any:
        """Call with a task's name, or with the id that it has at the service where nobody chose one (wire.py)."""
        from google.api_core.exceptions import NotFound

        for candidate in dict.fromkeys((name, name[::-1])):
            with translated(f"{what} {name!r}", role):
                try:
                    return call(f"{self._queue(queue)}/tasks/{candidate}")
                except NotFound:
                    continue
        return None

    def pause(self, queue: str) -> None:
        """Pause a queue."""
        with translated(f"pause the queue {queue!r}", "roles/cloudtasks.queueAdmin", queue):
            self._client.pause_queue(name=self._queue(queue))

    def resume(self, queue: str) -> None:
        """Resume a queue."""
        with translated(f"resume the queue {queue!r}", "roles/cloudtasks.queueAdmin", queue):
            self._client.resume_queue(name=self._queue(queue))

    def purge(self, queue: str) -> None:
        """Delete the tasks of a queue; the service takes up to a minute for it."""
        with translated(f"purge the queue {queue!r}", "roles/cloudtasks.queueAdmin", queue):
            self._client.purge_queue(name=self._queue(queue))


def read_task(task: Any, queue: str) -> TaskRecord:
    """Return what the service tells of a task."""
    is_http = "http_request" in task
    request = task.http_request if is_http else task.app_engine_http_request
    parts = urlsplit(request.url if is_http else request.relative_uri)
    created = read_moment(task, "create_time") or datetime.now(UTC)
    due = read_moment(task, "schedule_time")
    read = Task(
        queue=queue,
        name=task.name.rpartition("/")[2],
        path=parts.path + (f"?{parts.query}" if parts.query else ""),
        body=bytes(request.body),
        headers=dict(request.headers),
        eta=due,
        created=created,
        dispatch_deadline=task.dispatch_deadline.total_seconds() if "dispatch_deadline" in task else None,
    )
    meta, last = read_meta(read), task.last_attempt
    told = _STATUS.search(last.response_status.message) if "response_status" in last else None
    return TaskRecord(
        task=read if meta is None else replace(read, start_id=meta.start_id),
        state="running" if "dispatch_time" in last and "response_time" not in last else "waiting",
        due=due or created,
        attempts=task.dispatch_count,
        responses=task.response_count,
        first_attempt=read_moment(task.first_attempt, "dispatch_time"),
        status=None if told is None else int(told[1]),
    )


def read_moment(message: Any, name: str) -> datetime | None:
    """Return a moment of a message as a plain datetime in UTC; None: it is not set."""
    if name not in message:
        return None
    return datetime.fromtimestamp(getattr(message, name).timestamp(), UTC)


@contextmanager
def translated(what: str, role: str, queue: str | None = None) -> Iterator[None]:
    """Say what an error of the service means to people.

    Args:
        what: what was tried.
        role: what it takes.
        queue: name of the queue that may not be there.

    Raises:
        QueueNotFoundError: it is not.
        BackendUnavailableError: the service refused it, or cannot be reached.
    """
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        if queue is not None and isinstance(error, NotFound):
            raise QueueNotFoundError(
                f"Cloud Tasks knows no queue {queue!r}: `manage.py tasks queues --apply` makes those of "
                f"CLOUD_TASKS_QUEUES. ({error})"
            ) from error
        raise BackendUnavailableError(
            f"Cloud Tasks did not let this process {what}: {error}. Its account needs the role {role}; the API must be "
            "switched on, and CLOUD_TASKS_PROJECT_ID and CLOUD_TASKS_LOCATION must exist."
        ) from error
