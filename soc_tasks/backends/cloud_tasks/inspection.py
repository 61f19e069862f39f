"""Looking into Google Cloud Tasks by its API: page by page, since it counts nothing and its quotas are finite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from soc_tasks.backends.cloud_tasks.queues import QueueService, translated
from soc_tasks.backends.inspection import Inspector, QueueStanding, TaskFilter, TaskPage, matches
from soc_tasks.conf import get_queues
from soc_tasks.engine.records import TaskRecord
from soc_tasks.values import Task

#: Calls that one page makes at most while it looks for a text, and tasks of each.
MOST_CALLS: Final = 3
LOOK_AT: Final = 250

_QUEUE = re.compile(r"[A-Za-z0-9-]{1,100}")
_TASK = re.compile(r"[A-Za-z0-9_-]{1,500}")
_TOKEN = re.compile(r"[\x21-\x7e]{0,2000}")


class CloudInspector(Inspector):
    """Looks into the queues of the settings' location.

    Args:
        service: the queues; None: those of the settings.
    """

    lists_all_queues: ClassVar[bool] = False
    knows_states: ClassVar[bool] = False
    poll_seconds: ClassVar[int] = 15

    def __init__(self, service: QueueService | None = None) -> None:
        self._given = service

    @cached_property
    def _service(self) -> QueueService:
        return self._given or QueueService()

    def list_queues(self) -> list[QueueStanding]:
        """Return the queues by name, with how they differ from the settings: one call."""
        changes, found = self._service.compare()
        drift = {change.queue: change for change in changes}
        configured = get_queues()
        standings = {}
        for path, queue in found.items():
            name = path.rpartition("/")[2]
            change = drift.get(name)
            standings[name] = QueueStanding(
                name=name,
                state=queue.state.name.lower(),
                is_configured=name in configured,
                purged=_moment(queue.purge_time),
                rate_per_second=queue.rate_limits.max_dispatches_per_second or None,
                rate_max_concurrent=queue.rate_limits.max_concurrent_dispatches or None,
                drift=() if change is None else tuple(_describe(change)),
            )
        for name in configured.keys() - standings.keys():
            line = "Cloud Tasks has no such queue; manage.py tasks queues --apply makes it"
            standings[name] = QueueStanding(name=name, state="missing", drift=(line,))
        return [standings[name] for name in sorted(standings)]

    def list_tasks(self, wanted: TaskFilter, *, after: str = "", limit: int = 50) -> TaskPage:
        """Return tasks of one queue in the service's own order."""
        if not wanted.queue:
            return TaskPage()
        if not _TOKEN.fullmatch(after):
            raise ValueError("This is no place where a page of tasks begins.")
        from google.cloud.tasks_v2.types import Task as Message

        view = Message.View.FULL if wanted.context else Message.View.BASIC
        found: list[TaskRecord] = []
        token, looked = after, 0
        for _ in range(MOST_CALLS if wanted.searches else 1):
            size = LOOK_AT if wanted.searches else limit
            with translated("list the tasks", "roles/cloudtasks.viewer"):
                pager = self._client.list_tasks(
                    request={
                        "parent": self._path(wanted.queue),
                        "page_size": size,
                        "page_token": token,
                        "response_view": view,
                    }
                )
                page = next(iter(pager.pages))
            records = [_read(message, wanted.queue) for message in page.tasks]
            found += [record for record in records if matches(record, wanted)]
            looked += len(records)
            token = page.next_page_token
            if not token or len(found) >= limit:
                break
        return TaskPage(records=found, next=token, looked_at=looked)

    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task, with its body where this process may see it."""
        from google.api_core.exceptions import NotFound, PermissionDenied
        from google.cloud.tasks_v2.types import Task as Message

        path = self._path(queue, name)
        with translated("look at the task", "roles/cloudtasks.viewer"):
            try:
                message = self._client.get_task(request={"name": path, "response_view": Message.View.FULL})
            except NotFound:
                return None
            except PermissionDenied:
                # The body needs the permission cloudtasks.tasks.fullView; the rest does not.
                message = self._client.get_task(request={"name": path})
        return _read(message, queue)

    def run_now(self, queue: str, name: str) -> bool:
        """Run a task at once."""
        return self._act("run the task", lambda: self._client.run_task(name=self._path(queue, name)))

    def delete_task(self, queue: str, name: str) -> bool:
        """Delete a task; its name stays taken for a while."""
        return self._act("delete the task", lambda: self._client.delete_task(name=self._path(queue, name)))

    def pause(self, queue: str) -> None:
        """Keep a queue's tasks back."""
        with translated("pause the queue"):
            self._client.pause_queue(name=self._path(queue))

    def resume(self, queue: str) -> None:
        """Let a queue run again."""
        with translated("resume the queue"):
            self._client.resume_queue(name=self._path(queue))

    def purge(self, queue: str) -> None:
        """Delete the tasks that are in a queue now; the service takes up to a minute, and counts none."""
        with translated("purge the queue"):
            self._client.purge_queue(name=self._path(queue))

    @property
    def _client(self) -> Any:
        return self._service.client

    def _path(self, queue: str, name: str | None = None) -> str:
        if not _QUEUE.fullmatch(queue) or (name is not None and not _TASK.fullmatch(name)):
            raise ValueError("This is no name of a queue or a task.")
        path = f"{self._service.parent}/queues/{queue}"
        return path if name is None else f"{path}/tasks/{name}"

    @staticmethod
    def _act(what: str, call: Any) -> bool:
        with translated(what, "roles/cloudtasks.taskDeleter, or roles/cloudtasks.taskRunner"), _missing() as missing:
            call()
        return not missing


@contextmanager
def _missing() -> Iterator[list[str]]:
    """Give a list that tells afterwards whether the service knew no such task."""
    from google.api_core.exceptions import NotFound

    missing: list[str] = []
    try:
        yield missing
    except NotFound as error:
        missing.append(str(error))


def _describe(change: Any) -> Iterator[str]:
    for path, (found, wanted) in change.fields.items():
        yield f"{path} is {found}, and CLOUD_TASKS_QUEUES says {wanted}"


def _moment(value: Any) -> datetime | None:
    """Return a time of the service as a plain datetime; None where it has none."""
    if not value or value.timestamp() <= 0:
        return None
    return datetime.fromtimestamp(value.timestamp(), UTC)


def _read(message: Any, queue: str) -> TaskRecord:
    engine = message.app_engine_http_request
    http = message.http_request
    if http.url:
        parts = urlsplit(http.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        call, service = http, None
    else:
        path, call, service = engine.relative_uri, engine, engine.app_engine_routing.service or None
    schedule = _moment(message.schedule_time)
    created = _moment(message.create_time) or datetime.now(UTC)
    first, last = _moment(message.first_attempt.dispatch_time), message.last_attempt
    under_way = bool(_moment(last.dispatch_time)) and not _moment(last.response_time)
    deadline = message.dispatch_deadline
    task = Task(
        queue=queue,
        name=message.name.rpartition("/")[2],
        path=path,
        body=bytes(call.body),
        headers=dict(call.headers),
        eta=schedule,
        created=created,
        dispatch_deadline=deadline.total_seconds() if deadline else None,
        service=service,
        start_id="",
    )
    return TaskRecord(
        task=task,
        state="running" if under_way else "waiting",
        due=schedule or created,
        attempts=message.dispatch_count,
        responses=message.response_count,
        first_attempt=first,
    )
