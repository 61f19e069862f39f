"""Looking at a million tasks: pages that begin where the last one ended.

Every statement is answered from the index of one state; how much it reads depends on what is asked for, never on how
much there is.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, NamedTuple

from soc_tasks.engine.records import TaskRecord
from soc_tasks.engine.store.console import make_record
from soc_tasks.engine.store.rows import COLUMNS, TASKS, State
from soc_tasks.engine.store.sql import SqlStore

#: Queues that one statement looks at: SQLite joins at most 500 parts.
_QUEUES_AT_ONCE: Final = 50
#: What a listing reads of a body: as much as names the function of a deferred call.
_HEAD: Final = 3400

_LISTED = COLUMNS.replace("body", f"substr(body, 1, {_HEAD}) AS body")
#: In this order they are listed; each has an index of its own.
PHASES: Final = (State.RUNNING, State.SUSPECT, State.WAITING)


class Place(NamedTuple):
    """Where a page begins: behind this task."""

    phase: int = 0
    due: int = -(2**63)
    id: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which tasks are listed.

    Args:
        queue: of this queue only.
        phases: numbers in `PHASES`.
        is_due: only those whose time has come, or only those whose time has not.
    """

    queue: str | None = None
    phases: tuple[int, ...] = (0, 1, 2)
    is_due: bool | None = None


def find_queues(store: SqlStore) -> list[str]:
    """Return the queues that have waiting tasks, by jumping from one to the next in the index."""
    found: list[str] = []
    last = ""
    while True:
        sql = f"SELECT queue FROM {TASKS} WHERE state = {State.WAITING:d} AND queue > %s ORDER BY queue LIMIT 1"
        rows = store.select(sql, (last,))
        if not rows:
            return [name for name in found if store.means(name)]
        last = rows[0][0]
        found.append(last)


def list_page(
    store: SqlStore, selection: Selection, after: Place, limit: int, *, bodies: bool = False
) -> list[tuple[Place, TaskRecord]]:
    """Return the tasks behind a place, in order, each with its own place.

    Args:
        store: holds them.
        selection: which ones.
        after: where the last page ended.
        limit: how many at most.
        bodies: whether they come with their whole bodies.
    """
    found: list[tuple[Place, TaskRecord]] = []
    for phase in selection.phases:
        if phase < after.phase or len(found) >= limit:
            continue
        start = after if phase == after.phase else Place(phase)
        rows = _list_phase(store, selection, start, limit - len(found), bodies)
        found += [(Place(phase, row[3], row[0]), make_record(row)) for row in rows]
    return found


def _list_phase(store: SqlStore, selection: Selection, after: Place, limit: int, bodies: bool) -> list[tuple[Any, ...]]:
    state = PHASES[after.phase]
    # Only the waiting ones are many, and only their index begins with the queue.
    by_queue = state == State.WAITING
    queues: list[str | None] = [selection.queue]
    if by_queue and selection.queue is None:
        queues = list(find_queues(store))
    columns, now, rows = COLUMNS if bodies else _LISTED, store.clock.now(), []
    for first in range(0, len(queues), _QUEUES_AT_ONCE):
        parts: list[str] = []
        given: list[Any] = []
        for queue in queues[first : first + _QUEUES_AT_ONCE]:
            where = f"state = {state:d}"
            mine: list[Any] = []
            if queue is not None:
                where, mine = f"{where} AND queue = %s", [queue]
            if selection.is_due is not None and state == State.WAITING:
                where, mine = f"{where} AND due {'<=' if selection.is_due else '>'} %s", [*mine, now]
            # Two seeks: no database of all goes straight to (due, id) > (?, ?).
            for seek, here in (("due = %s AND id > %s", [after.due, after.id]), ("due > %s", [after.due])):
                parts.append(
                    f"SELECT * FROM (SELECT {columns}, state FROM {TASKS} WHERE {where} AND {seek}"
                    f" ORDER BY due, id LIMIT {limit:d}) AS part{len(parts)}"
                )
                given += [*mine, *here]
        if parts:
            rows += store.select(" UNION ALL ".join(parts), given)
    found = [row for row in rows if selection.queue is not None or store.means(row[1])]
    found.sort(key=lambda row: (row[3], row[0]))
    return found[:limit]
