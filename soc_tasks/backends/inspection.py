"""Looking into a backend's queues, page by page: what the console asks, whatever the backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import unquote_plus

from soc_tasks.conf import get_queues
from soc_tasks.engine.records import QueueRecord, TaskRecord
from soc_tasks.values import QueueOptions

if TYPE_CHECKING:
    from soc_tasks.backends.base import BaseBackend

#: Which tasks can be asked for, beside "": all of them.
STATES: Final = ("running", "due", "scheduled")
#: How many tasks one page looks through for a text.
LOOK_AT: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStanding:
    """A queue, and what waits in it; None is what the backend cannot tell.

    Args:
        name: its name.
        state: "running", "paused" or "disabled".
        is_configured: whether CLOUD_TASKS_QUEUES, or the backend itself, names it.
        due: tasks that could run now.
        scheduled: tasks whose time has not come, retries included.
        running: tasks under way.
        oldest: since when the oldest due task has been due (aware).
        purged: when it was last purged (aware).
        pace: tasks a second that it is held to for a while.
        rate_per_second, rate_max_concurrent: its limits; None: none.
        drift: how it differs from CLOUD_TASKS_QUEUES, a line each.
    """

    name: str
    state: str = "running"
    is_configured: bool = True
    due: int | None = None
    scheduled: int | None = None
    running: int | None = None
    oldest: datetime | None = None
    purged: datetime | None = None
    pace: float | None = None
    rate_per_second: float | None = None
    rate_max_concurrent: int | None = None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks are looked for; "" takes any. Texts match in whatever case.

    Args:
        queue: name of a queue.
        state: one of `STATES`.
        url: a part of the path, or of the deferred function.
        name: a whole name, or a part of one.
        context: a part of what is sent.
    """

    queue: str = ""
    state: str = ""
    url: str = ""
    name: str = ""
    context: str = ""

    @property
    def searches(self) -> bool:
        """Tell whether tasks have to be looked through one by one."""
        return bool(self.url or self.name or self.context)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPage:
    """Some tasks.

    Args:
        records: the tasks.
        next: where the next page begins; "" where there is none.
        looked_at: how many tasks were looked through for it.
    """

    records: Sequence[TaskRecord] = ()
    next: str = ""
    looked_at: int = 0


class Inspector:
    """Looks into queues and steers them, by what every backend offers.

    Args:
        backend: whose queues.
        note: what people should know of what they see.
    """

    #: Whether queues can be listed together; else one has to be chosen.
    lists_all_queues: ClassVar[bool] = True
    #: Whether tasks can be asked for by state.
    knows_states: ClassVar[bool] = True
    #: Whether what it does commits with a transaction of the state, where one is open.
    is_transactional: ClassVar[bool] = False
    #: Seconds between two looks of a page that keeps itself up to date.
    poll_seconds: ClassVar[int] = 3
    #: What counts stop at: a number above it means "or more".
    cap: ClassVar[int] = 10_000

    def __init__(self, backend: BaseBackend, note: str = "") -> None:
        self.backend = backend
        self.note = note

    def list_queues(self) -> list[QueueStanding]:
        """Return the queues by name.

        Raises:
            NotSupportedError: the backend cannot tell.
        """
        configured = get_queues()
        records = {record.name: record for record in self.backend.list_queues(self.cap + 1)}
        return [
            judge_queue(records.get(name) or QueueRecord(name=name), configured.get(name))
            for name in sorted({*records, *configured})
        ]

    def list_names(self) -> list[str]:
        """Return the names of the queues whose tasks can be listed (raises as `list_queues`)."""
        return [standing.name for standing in self.list_queues()]

    def list_tasks(self, wanted: TaskFilter, *, after: str = "", limit: int = 50) -> TaskPage:
        """Return tasks: running ones first, then by when they are due.

        Args:
            wanted: which ones.
            after: `next` of the page before.
            limit: how many at most.

        Raises:
            NotSupportedError: the backend cannot tell.
            ValueError: `after` is no place where a page begins.
        """
        if after:
            raise ValueError("This backend lists the first tasks alone.")
        records = self.backend.list_tasks(wanted.queue or None, limit=LOOK_AT if wanted.searches else limit)
        if wanted.context:
            # Lists come without bodies.
            whole = (self.backend.get_task(record.task.queue, record.task.name) for record in records)
            records = [record for record in whole if record is not None]
        found = [record for record in records if matches(record, wanted) and self.is_in_state(record, wanted.state)]
        return TaskPage(records=found[:limit], looked_at=len(records))

    def is_in_state(self, record: TaskRecord, state: str) -> bool:
        """Tell whether a task is in one of `STATES`; "" takes any."""
        if not state:
            return True
        if record.state == "running" or state == "running":
            return record.state == state
        return (record.due <= self.backend.now()) == (state == "due")


def matches(record: TaskRecord, wanted: TaskFilter) -> bool:
    """Tell whether a task is one of those that are looked for, as far as its texts say."""
    return matches_texts(record.task.path, record.task.name, record.task.body, wanted)


def matches_texts(path: str, name: str, body: bytes | memoryview | None, wanted: TaskFilter) -> bool:
    """Tell whether a task is one of those that are looked for.

    Args:
        path, name: the task's.
        body: what it carries, or as much of it as names the function of a deferred call.
        wanted: what is looked for.
    """
    if wanted.name and wanted.name.casefold() not in name.casefold():
        return False
    if not (wanted.url or wanted.context):
        return True
    text = bytes(body or b"").decode("ascii", "replace")
    if wanted.url:
        # The function of a deferred call stands first in its body.
        head = text.partition("&")[0].removeprefix("function=") if text.startswith("function=") else ""
        if wanted.url.casefold() not in unquote_plus(f"{path} {head}").casefold():
            return False
    return not wanted.context or wanted.context.casefold() in unquote_plus(text).casefold()


def judge_queue(record: QueueRecord, options: QueueOptions | None) -> QueueStanding:
    """Return a queue as people see it.

    Args:
        record: what waits in it.
        options: what the settings say of it; None: nothing.
    """
    return QueueStanding(
        name=record.name,
        state="paused" if record.paused else "running",
        is_configured=options is not None,
        due=record.due,
        scheduled=record.scheduled,
        running=record.running,
        oldest=record.oldest,
        purged=record.purged,
        pace=record.pace,
        rate_per_second=None if options is None else options.rate_per_second,
        rate_max_concurrent=None if options is None else options.rate_max_concurrent,
    )
