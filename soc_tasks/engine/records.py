"""What the engine tells of itself: frozen values for commands and the console."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from soc_tasks.values import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task in its queue.

    Args:
        task: the task; in lists without its body.
        state: "waiting", "running", "suspect" (its last process died; it waits to run alone), or "unknown" (it waits
            for a worker that knows its URL or its function).
        due: when it may run next (aware).
        attempts: attempts that ended.
        responses: those that were answered.
        first_attempt: when the first one began, or None.
        status: HTTP status of the last answer; 504 where there was none in time; None before the first.
        error: the last exception of an attempt that the site ran in process; "" where there was none.
        crashes: how often in a row a process died while it ran nothing but this task.
        unknown: since when no worker that took it knew it, or None.
    """

    task: Task
    state: str
    due: datetime
    attempts: int = 0
    responses: int = 0
    first_attempt: datetime | None = None
    status: int | None = None
    error: str = ""
    crashes: int = 0
    unknown: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRecord:
    """A queue and what waits in it.

    Args:
        name: its name.
        paused: whether it is paused.
        due: tasks that could run now.
        scheduled: tasks whose time has not come, retries included.
        running: tasks in workers' hands.
        oldest: since when the oldest due task has been due (aware), or None.
        purged: when the queue was last purged (aware), or None.
        pace: tasks a second that it is held to for a while: its target is overloaded, or it was idle; else None.
        capped: whether no more was counted: there are at least so many.

    Counts are None where the queue's service does not tell them.
    """

    name: str
    paused: bool = False
    due: int | None = 0
    scheduled: int | None = 0
    running: int | None = 0
    oldest: datetime | None = None
    purged: datetime | None = None
    pace: float | None = None
    capped: bool = False


class WorkerRecord(NamedTuple):
    """A worker process: a row of its table."""

    id: int
    host: str
    pid: int
    born: int
    started: int
    heartbeat: int
    beats: int


class MinuteRecord(NamedTuple):
    """What came of a queue's attempts in one minute: a row of its table.

    Args:
        minute: when it began, microseconds.
        queue: the queue.
        succeeded, failed: attempts by their answers.
        dead: tasks that failed for good, each after an attempt that counts as failed.
        spent: how long these attempts took together, microseconds.
    """

    minute: int
    queue: str
    succeeded: int = 0
    failed: int = 0
    dead: int = 0
    spent: int = 0


class QueueView(NamedTuple):
    """What a claim must know of a queue that has waiting tasks."""

    name: str
    #: When the first of its tasks is due; 0 or less: one is to run at once, past pause and rates.
    due: int
    paused: bool = False
    #: The bucket of one with a rate: how full it was at `filled`.
    tokens: float = 0.0
    filled: int = 0
    #: Tasks a second that it was held to at `capped`, and the seconds in which that doubles; None: it is not held.
    cap: float | None = None
    capped: int = 0
    doubling: float = 1.0
