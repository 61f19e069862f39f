"""Looking into the embedded engine: its tables answer, from indexes, however many tasks there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from soc_tasks.backends.inspection import LOOK_AT, Inspector, TaskFilter, TaskPage, matches, matches_texts
from soc_tasks.conf import get_queues
from soc_tasks.engine.browsing import Place, Row, Selection, find_named, find_queues, list_newest, list_page
from soc_tasks.engine.records import TaskRecord
from soc_tasks.engine.store.console import make_record
from soc_tasks.engine.store.sql import SqlStore

if TYPE_CHECKING:
    from soc_tasks.backends.embedded import EmbeddedBackend

#: How many tasks with their bodies, which may be large, one page looks through for a text; and bytes of these.
LOOK_AT_BODIES: Final = 1000
MOST_BYTES: Final = 16 * 2**20
#: Tasks that are read at a time while it looks.
_CHUNK: Final = 500


class EmbeddedInspector(Inspector):
    """Looks into the tables of the embedded engine."""

    is_transactional = True

    backend: EmbeddedBackend

    @property
    def _store(self) -> SqlStore:
        store = self.backend.store
        assert isinstance(store, SqlStore)
        return store

    def list_names(self) -> list[str]:
        """Return the queues that are configured, or in which tasks wait; nothing is counted for it."""
        return sorted({*get_queues(), *find_queues(self._store)})

    def list_tasks(self, wanted: TaskFilter, *, after: str = "", limit: int = 50) -> TaskPage:
        """Return tasks; for a text so many are looked through, the newest first, that it never takes long."""
        if not wanted.searches:
            rows = list_page(self._store, _select(wanted), _read_place(after), limit + 1)
            next_page = _write_place(rows[limit - 1][0]) if len(rows) > limit else ""
            records = [make_record(row) for _, row in rows[:limit]]
            return TaskPage(records=records, next=next_page, looked_at=len(records))
        found, looked = self._find_by_name(wanted, after), 0
        looker = self._look_at_queue if wanted.queue else self._look_at_all
        next_page = ""
        for row, place in looker(wanted, after):
            next_page = place
            if row is None:
                continue
            looked += 1
            # Those that have the whole name were found by it, on the first page.
            if not matches_texts(row[4], row[2], row[7], wanted) or row[2] == wanted.name:
                continue
            record = make_record(row)
            if self.is_in_state(record, wanted.state):
                found.append(record)
                if len(found) == limit:
                    break
        return TaskPage(records=found, next=next_page, looked_at=looked)

    def _find_by_name(self, wanted: TaskFilter, after: str) -> list[TaskRecord]:
        """Return the tasks that have the whole name, which an index finds."""
        if not wanted.name or after:
            return []
        queues = [wanted.queue] if wanted.queue else self.list_names()
        found = map(make_record, find_named(self._store, queues, wanted.name))
        return [record for record in found if matches(record, wanted) and self.is_in_state(record, wanted.state)]

    def _look_at_queue(self, wanted: TaskFilter, after: str) -> Iterator[tuple[Row | None, str]]:
        """Yield the rows of one queue, by when they are due, each with its place; None and "" at the end."""
        budget, size, last, bodies = _budget(wanted), 0, _read_place(after), bool(wanted.context)
        while budget > 0 and size < MOST_BYTES:
            chunk = min(budget, _CHUNK)
            rows = list_page(self._store, _select(wanted), last, chunk, bodies=bodies)
            for place, row in rows:
                size += len(row[7] or b"")
                yield row, _write_place(place)
            if len(rows) < chunk:
                yield None, ""
                return
            last, budget = rows[-1][0], budget - chunk

    def _look_at_all(self, wanted: TaskFilter, after: str) -> Iterator[tuple[Row | None, str]]:
        """Yield the rows of all queues, the newest first, each with its place; None and how far it has looked, too."""
        budget, size, bodies = _budget(wanted), 0, bool(wanted.context)
        before = _read_place(after).id if after else 2**63 - 1
        while budget > 0 and size < MOST_BYTES:
            chunk = min(budget, _CHUNK)
            rows, before = list_newest(self._store, before, chunk, bodies=bodies)
            for row in rows:
                size += len(row[7] or b"")
                yield row, _write_place(Place(0, 0, row[0]))
            # Names that are kept are looked at as well, and are no tasks.
            yield None, _write_place(Place(0, 0, before)) if before else ""
            if not before:
                return
            budget -= chunk


def _budget(wanted: TaskFilter) -> int:
    return LOOK_AT_BODIES if wanted.context else LOOK_AT


def _select(wanted: TaskFilter) -> Selection:
    phases = {"running": (0,), "due": (1, 2), "scheduled": (2,)}.get(wanted.state, (0, 1, 2))
    is_due = {"due": True, "scheduled": False}.get(wanted.state)
    return Selection(queue=wanted.queue or None, phases=phases, is_due=is_due)


def _write_place(place: Place) -> str:
    return "_".join(map(str, place))


def _read_place(text: str) -> Place:
    if not text:
        return Place()
    parts = text.split("_")
    if len(parts) != 3 or not all(part.removeprefix("-").isdecimal() and len(part) < 20 for part in parts):
        raise ValueError(f"{text!r} is no place where a page of tasks begins.")
    phase, due, row = map(int, parts)
    if not 0 <= phase <= 2 or max(abs(due), row) >= 2**63:
        raise ValueError(f"{text!r} is no place where a page of tasks begins.")
    return Place(phase, due, row)
