"""What the state keeps of iterations, shards and dead letters: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from soc_tasks.values import Task


@dataclass(slots=True, kw_only=True)
class ShardRecord:
    """One shard of an iteration.

    Args:
        iteration: id of the iteration.
        index: 0 for the first.
        start, end: half-open range of keys; None is an open end.
        cursor: key of the first entity that is not done, or None before the first batch.
        context: the context as typed JSON, edits included.
        step: how many slices were handed over.
        epoch: how often it was resumed.
        owner: who works on it, or "".
        until: when that lease ends.
        status: "running", "parked", "done" or "failed".
        attempts: failures since the last progress.
        done: entities done.
        failed: entities given up.
        halved: entities that the batch at the cursor was cut down to, since it failed; None: it did not.
        advanced: whether the cursor has moved since the slice was handed over.
        rate: entities a second of late.
        batch_size: entities a batch of late, where it steers itself.
        expected: entities that will be done or given up when its range is, as counted when that was made; or None.
        drained: whether its range is done, and it looks for a part of another one's rest.
        wants: index of the shard whose part, from `start` to `end`, a drained one has asked for.
        hold: why it is held back, or "".
        task: name of the task of its slice, where that is another than it was made with, or "".
        progressed_at: when the cursor last moved.
        error: the last failure.
    """

    iteration: str
    index: int
    start: str | None = None
    end: str | None = None
    cursor: str | None = None
    context: str = "{}"
    step: int = 0
    epoch: int = 0
    owner: str = ""
    until: datetime | None = None
    status: str = "running"
    attempts: int = 0
    done: int = 0
    failed: int = 0
    halved: int | None = None
    advanced: bool = False
    rate: float = 0.0
    batch_size: int | None = None
    expected: int | None = None
    drained: bool = False
    wants: int | None = None
    hold: str = ""
    task: str = ""
    progressed_at: datetime | None = None
    error: str = ""


@dataclass(slots=True, kw_only=True)
class IterationRecord:
    """One run over a set of entities.

    Args:
        id: the start id of the task that started it.
        name: what runs, for people.
        status: "running", "paused", "cancelled", "succeeded" or "failed".
        unfinished: how many shards are not done.
        total: how many entities there were at the start, or None where nobody counted.
        parked: how many shards are parked: not done, and without a task until there is room.
        concurrency: how many shards may be neither done nor parked at a time; None: all.
        wanted: whether a shard may have asked for a part of another's rest; only a hint, to save looking.
        options: plain JSON: path, script_name, inherited, the original context, repeat.
        created, finished: when it began and ended.
        error: what ended it.
    """

    id: str
    name: str
    status: str = "running"
    unfinished: int = 1
    total: int | None = None
    parked: int = 0
    concurrency: int | None = None
    wanted: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    created: datetime | None = None
    finished: datetime | None = None
    error: str = ""


@dataclass(slots=True, kw_only=True)
class DeadLetter:
    """A task that failed for good, kept with its error.

    Args:
        id: None until it is kept.
        task: the task, to be run again.
        attempts: how many attempts were made.
        error_type: class of the last exception, or what the queue saw.
        error: its message.
        traceback: its traceback, for the operator.
        created: when it died.
    """

    task: Task
    attempts: int
    error_type: str
    error: str = ""
    traceback: str = ""
    id: int | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterGroup:
    """The dead letters of one class of error.

    Args:
        error_type: the class.
        number: how many there are; counting stops one above a cap.
        error: message of the newest.
        newest: when that died.
    """

    error_type: str
    number: int
    error: str = ""
    newest: datetime | None = None
