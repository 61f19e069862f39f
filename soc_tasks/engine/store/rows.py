"""What a row of the task table holds, and how a `Task` is written to it and read back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from soc_tasks.engine.clock import from_micros, to_micros
from soc_tasks.meta import make_plain_headers
from soc_tasks.start_ids import find_key, make_key
from soc_tasks.values import RetryOptions, Task

TASKS: Final = "soc_tasks_engine_task"
QUEUES: Final = "soc_tasks_engine_queue"
WORKERS: Final = "soc_tasks_engine_worker"
MINUTES: Final = "soc_tasks_engine_minute"


class State(IntEnum):
    """Where a row stands; the numbers are in the tables and in the conditions of their indexes."""

    WAITING = 0
    RUNNING = 1
    ENDED = 2
    SUSPECT = 3


#: Columns that an insert gives, with their types; the others have defaults in the database.
GIVEN: Final = {
    "id": "bigint",
    "queue": "text",
    "name": "text",
    "due": "bigint",
    "path": "text",
    "script_name": "text",
    "headers": "text",
    "body": "bytea",
    "options": "text",
    "start_id": "text",
    "named": "boolean",
    "created": "bigint",
    "keyed": "smallint",
}


class Leased(NamedTuple):
    """A task in a worker's hands: the columns of its row, in this order."""

    id: int
    queue: str
    name: str
    due: int
    path: str
    script_name: str
    headers: str
    body: bytes
    options: str
    start_id: str
    named: bool
    created: int
    owner: int | None
    attempts: int
    responses: int
    first_attempt: int | None
    status: int | None
    busy: int
    crashes: int
    alone: bool
    progress: str
    unknown: int | None
    note: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the task's own options: dispatch_deadline, retry, and where it is routed."""
        return json.loads(self.options) if self.options else {}

    @property
    def retry(self) -> RetryOptions | None:
        """Return the task's own retry options, if it has any."""
        given = self.settings.get("retry")
        # A newer release may have written options that this one does not know.
        return None if given is None else RetryOptions(**{name: given[name] for name in _RETRY_NAMES & given.keys()})

    def to_task(self) -> Task:
        """Return the task that was enqueued; `eta` is when it was due last."""
        given = self.settings
        return Task(
            queue=self.queue,
            name=self.name,
            path=self.path,
            script_name=self.script_name,
            body=bytes(self.body or b""),
            headers=json.loads(self.headers) if self.headers else make_plain_headers(self.start_id),
            eta=from_micros(self.due) if self.due > 0 else None,
            created=from_micros(self.created),
            dispatch_deadline=given.get("dispatch_deadline"),
            retry=self.retry if given else None,
            service=given.get("service"),
            version=given.get("version"),
            instance=given.get("instance"),
            start_id=self.start_id,
            named=bool(self.named),
            target=given.get("target"),
        )


def by_due(leased: Leased) -> tuple[int, int]:
    """Return what claimed tasks are sorted by."""
    return (leased.due, leased.id)


COLUMNS: Final = ", ".join(Leased._fields)
_RETRY_NAMES = {field.name for field in dataclasses.fields(RetryOptions)}


def write_task(task: Task, now: int) -> tuple[Any, ...]:
    """Return the values of `GIVEN` for a task that is enqueued `now`."""
    # A name that somebody chose may have the form of a key; it takes that, so that it stands in the way of itself.
    key = find_key(task.name)
    return (
        # Tasks of one call are due at the same moment, and run in their order: by the times of their starts.
        key or (find_key(task.start_id) if task.named else None) or make_key(),
        task.queue,
        task.name,
        now if task.eta is None else max(now, to_micros(task.eta)),
        task.path,
        task.script_name,
        _write_headers(task),
        task.body,
        _write_options(task),
        task.start_id,
        task.named,
        to_micros(task.created),
        0 if key is None or task.named else 1,
    )


def with_new_key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of `GIVEN` under a new key, from which its name does not follow."""
    return (make_key(), *row[1:-1], 0)


def by_name(name: str, *queues: str) -> tuple[str, tuple[Any, ...]]:
    """Return the condition that finds the tasks of a name in some queues, and its parameters."""
    marks = ", ".join(["%s"] * len(queues))
    listed = f"(queue IN ({marks}) AND name = %s AND keyed = 0)"
    if (key := find_key(name)) is None:
        return listed, (*queues, name)
    keyed = f"(id = %s AND queue IN ({marks}) AND name = %s AND keyed = 1)"
    return f"({listed} OR {keyed})", (*queues, name, key, *queues, name)


# json.dumps() with separators makes an encoder for each call; one serves all.
_dump = json.JSONEncoder(separators=(",", ":")).encode


def _write_headers(task: Task) -> str:
    """Return the headers as JSON; "" for those of a task that has none of its own, which most have not."""
    return "" if task.headers == make_plain_headers(task.start_id) else _dump(dict(task.headers))


def _write_options(task: Task) -> str:
    given: dict[str, Any] = {}
    for name in ("dispatch_deadline", "service", "version", "instance", "target"):
        if (value := getattr(task, name)) is not None:
            given[name] = value
    if task.retry is not None and (retry := task.retry.as_dict()):
        given["retry"] = retry
    return _dump(given) if given else ""


def write_insert(table: str, values: Mapping[str, Any]) -> str:
    """Return the statement that inserts a row; its parameters are the values in their order."""
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})"
