"""Looking into the embedded engine: its tables answer, from indexes, however many tasks there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from soc_tasks.backends.inspection import LOOK_AT, Inspector, TaskFilter, TaskPage, matches
from soc_tasks.engine.browsing import Place, Selection, list_page
from soc_tasks.engine.records import TaskRecord
from soc_tasks.engine.store.sql import SqlStore

if TYPE_CHECKING:
    from soc_tasks.backends.embedded import EmbeddedBackend

#: How many tasks with their bodies, which may be large, one page looks through for a text; and bytes of these.
LOOK_AT_BODIES: Final = 1000
MOST_BYTES: Final = 16 * 2**20
#: Tasks that are read at a time while it looks.
_CHUNK: Final = 250


class EmbeddedInspector(Inspector):
    """Looks into the tables of the embedded engine."""

    is_transactional = True

    backend: EmbeddedBackend

    @property
    def _store(self) -> SqlStore:
        store = self.backend.store
        assert isinstance(store, SqlStore)
        return store

    def list_tasks(self, wanted: TaskFilter, *, after: str = "", limit: int = 50) -> TaskPage:
        """Return tasks; for a text, so many are looked through that it never takes long."""
        selection = _select(wanted)
        found, last, looked, more = self._find_by_name(wanted, after), _read_place(after), 0, False
        for place, record in self._look(wanted, selection, last, limit):
            if len(found) == limit:
                more = True
                break
            last, looked = place, looked + 1
            # Those that have the whole name were found by it, on the first page.
            if matches(record, wanted) and not (wanted.name and record.task.name == wanted.name):
                found.append(record)
        else:
            more = wanted.searches and looked >= _budget(wanted)
        return TaskPage(records=found, next=_write_place(last) if more else "", looked_at=looked)

    def _find_by_name(self, wanted: TaskFilter, after: str) -> list[TaskRecord]:
        """Return the tasks that have the whole name, which an index finds."""
        if not wanted.name or after:
            return []
        queues = [wanted.queue] if wanted.queue else [record.name for record in self.list_queues()]
        found = [self._store.get_task(queue, wanted.name) for queue in queues]
        return [
            record
            for record in found
            if record is not None and matches(record, wanted) and self.is_in_state(record, wanted.state)
        ]

    def _look(
        self, wanted: TaskFilter, selection: Selection, last: Place, limit: int
    ) -> Iterator[tuple[Place, TaskRecord]]:
        budget = _budget(wanted) if wanted.searches else limit + 1
        size, bodies = 0, bool(wanted.context)
        while budget > 0 and size < MOST_BYTES:
            chunk = min(budget, _CHUNK)
            rows = list_page(self._store, selection, last, chunk, bodies=bodies)
            for place, record in rows:
                size += len(record.task.body) if bodies else 0
                yield place, record
            if len(rows) < chunk:
                return
            last, budget = rows[-1][0], budget - chunk


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
    if not 0 <= phase <= 2:
        raise ValueError(f"{text!r} is no place where a page of tasks begins.")
    return Place(phase, due, row)
