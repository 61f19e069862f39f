"""Looking into Google Cloud Tasks by its API: page by page, since it counts nothing and its quotas are finite."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from soc_tasks.backends.cloud_tasks.queues import QueueService
from soc_tasks.backends.cloud_tasks.service import get_service
from soc_tasks.backends.cloud_tasks.steering import read_moment, read_task, translated
from soc_tasks.backends.inspection import Inspector, QueueStanding, TaskFilter, TaskPage, matches
from soc_tasks.conf import get_queues
from soc_tasks.engine.records import TaskRecord

#: Calls that one page makes at most while it looks for a text, and tasks of each.
MOST_CALLS: Final = 3
LOOK_AT: Final = 250

_TOKEN = re.compile(r"[\x21-\x7e]{0,2000}")


class CloudInspector(Inspector):
    """Looks into the queues of the settings' location."""

    lists_all_queues: ClassVar[bool] = False
    knows_states: ClassVar[bool] = False
    poll_seconds: ClassVar[int] = 15

    def list_queues(self) -> list[QueueStanding]:
        """Return the queues by name, with how they differ from the settings: one call."""
        changes, found = QueueService(get_service().client).compare()
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
                purged=read_moment(queue, "purge_time"),
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
        from google.cloud.tasks_v2 import Task as Message

        service = QueueService(get_service().client)
        request: dict[str, Any] = {
            "parent": f"{service.parent}/queues/{wanted.queue}",
            "page_size": LOOK_AT if wanted.searches else limit,
            "page_token": after,
        }
        role = "roles/cloudtasks.viewer"
        if wanted.context:
            request["response_view"], role = Message.View.FULL, "roles/cloudtasks.admin"
        found: list[TaskRecord] = []
        looked = 0
        for _ in range(MOST_CALLS if wanted.searches else 1):
            with translated(f"list the tasks of the queue {wanted.queue!r}", role, wanted.queue):
                page = next(iter(service.client.list_tasks(request=request).pages))
            records = [read_task(message, wanted.queue) for message in page.tasks]
            found += [record for record in records if matches(record, wanted)]
            looked += len(records)
            request["page_token"] = page.next_page_token
            if not page.next_page_token or len(found) >= limit:
                break
        # Its pages are as they are: what was found beyond the limit is shown as well.
        return TaskPage(records=found, next=request["page_token"], looked_at=looked)


def _describe(change: Any) -> Iterator[str]:
    for path, (found, wanted) in change.fields.items():
        yield f"{path} is {found}, and CLOUD_TASKS_QUEUES says {wanted}"
