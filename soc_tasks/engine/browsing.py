"""Looking at a million tasks: pages that begin where the last one ended.

Every statement is answered from the index of one state; how much it reads depends on what is asked for, never on how
much there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from soc_tasks.engine.store.rows import COLUMNS, TASKS, State, by_name
from soc_tasks.engine.store.sql import SqlStore

#: Queues that one statement looks at: SQLite joins at most 500 parts.
_QUEUES_AT_ONCE: Final = 50
#: Running tasks and suspects that are looked at.
MOST_FEW: Final = 10_000
#: What a listing reads of a body: as much as names the function of a deferred call.
_HEAD: Final = 3400

_LISTED = COLUMNS.replace("body", f"substr(body, 1, {_HEAD}) AS body")
#: In this order they are listed; each has an index of its own.
PHASES: Final = (State.RUNNING, State.SUSPECT, State.WAITING)


#: The columns of `COLUMNS`, and the state behind them.
Row = tuple[Any, ...]


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


def find_named(store: SqlStore, queues: Sequence[str], name: str) -> list[Row]:
    """Return the rows of the tasks that have a name, in some queues, with their whole bodies."""
    if not queues:
        return []
    which, given = by_name(name, *queues)
    return store.select(f"SELECT {COLUMNS}, state FROM {TASKS} WHERE {which} AND state <> {State.ENDED:d}", given)


def list_page(
    store: SqlStore, selection: Selection, after: Place, limit: int, *, bodies: bool = False
) -> list[tuple[Place, Row]]:
    """Return the rows of the tasks behind a place, in order, each with its own place.

    Args:
        store: holds them.
        selection: which ones.
        after: where the last page ended.
        limit: how many at most.
        bodies: whether they come with their whole bodies.
    """
    found: list[tuple[Place, Row]] = []
    for phase in selection.phases:
        if phase < after.phase or len(found) >= limit:
            continue
        start = after if phase == after.phase else Place(phase)
        rows = _list_phase(store, selection, start, limit - len(found), bodies)
        found += [(Place(phase, row[3], row[0]), row) for row in rows]
    return found


def list_newest(store: SqlStore, before: int, limit: int, *, bodies: bool = False) -> tuple[list[Row], int]:
    """Return the rows of the newest tasks of all queues before an id, and the id before which the next ones are.

    Args:
        store: holds them.
        before: an id.
        limit: how many rows are looked at, those of names that are kept among them.
        bodies: whether they come with their whole bodies.

    Returns:
        The rows, and 0 where there are no more.
    """
    columns = COLUMNS if bodies else _LISTED
    rows = store.select(
        f"SELECT {columns}, state FROM {TASKS} WHERE id < %s ORDER BY id DESC LIMIT {limit:d}", (before,)
    )
    live = [row for row in rows if row[-1] != State.ENDED and store.means(row[1])]
    return live, rows[-1][0] if len(rows) == limit else 0


def _list_phase(store: SqlStore, selection: Selection, after: Place, limit: int, bodies: bool) -> list[tuple[Any, ...]]:
    state = PHASES[after.phase]
    columns, now = COLUMNS if bodies else _LISTED, store.clock.now()
    rows: list[Row] = []
    given: list[Any]
    queues: list[str | None] = [selection.queue]
    if state != State.WAITING:
        # They are few, and found by their own index, whatever the planner believes of it: an empty one has no figures.
        order = "owner" if state == State.RUNNING else "due"
        source = f"(SELECT {columns}, state FROM {TASKS} WHERE state = {state:d} ORDER BY {order} LIMIT {MOST_FEW})"
        given = [after.due, after.due, after.id]
        where, given = ("queue = %s AND ", [selection.queue, *given]) if selection.queue is not None else ("", given)
        where += "(due > %s OR (due = %s AND id > %s))"
        rows = store.select(f"SELECT * FROM {source} AS few WHERE {where} ORDER BY due, id LIMIT {limit:d}", given)
        return [row for row in rows if store.means(row[1])]
    if selection.queue is None:
        # Only the index of the waiting ones, which are many, begins with the queue.
        queues = list(find_queues(store))
    for first in range(0, len(queues), _QUEUES_AT_ONCE):
        parts: list[str] = []
        given = []
        for queue in queues[first : first + _QUEUES_AT_ONCE]:
            where = f"state = {state:d}"
            mine: list[Any] = []
            if queue is not None:
                where, mine = f"{where} AND queue = %s", [queue]
            if selection.is_due is not None:
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
