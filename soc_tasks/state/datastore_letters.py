"""Dead letters and payloads on Datastore."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from soc_tasks.errors import TaskTooLargeError
from soc_tasks.meta import read_meta
from soc_tasks.state.base import DeadLetter
from soc_tasks.state.datastore_base import DatastoreBase, make_id
from soc_tasks.state.datastore_records import (
    ITERATION,
    LETTER,
    MOST_WORDS,
    PAYLOAD,
    make_entity,
    part_keys,
    put_bytes,
    read_task,
    task_values,
    to_moment,
)
from soc_tasks.state.kept_tasks import spell_out
from soc_tasks.state.records import LetterGroup

#: Ids rise with time and keys fall: the order of keys, which needs no index, is the newest first.
_LAST_ID: Final = 2**63 - 1
#: Dead letters that are grouped at most: each one is read for it.
MOST_GROUPED: Final = 500
#: Bytes of a payload: all of it is one commit, together with its task.
MOST_PAYLOAD: Final = 9 * 2**20


class DatastoreLetters(DatastoreBase):
    """Keeps dead letters and payloads as entities."""

    def _letter_key(self, letter_id: int) -> Any:
        return self.client.key(LETTER, _LAST_ID - letter_id)

    def add_dead_letter(self, letter: DeadLetter, *, holder_died: bool = False) -> None:
        """Keep a dead letter, and fail the shard of a slice with it."""
        letter_id = make_id()
        self.run(lambda: self._add_letter(letter, letter_id, holder_died))

    def _add_letter(self, letter: DeadLetter, letter_id: int, holder_died: bool) -> None:
        meta = read_meta(letter.task)
        message = meta.slice if meta is not None else None
        error_type, error = letter.error_type[:255], spell_out(letter.error)[:MOST_WORDS]
        values = {
            **task_values(letter.task),
            "attempts": letter.attempts,
            "error_type": error_type,
            "error": error,
            "traceback": spell_out(letter.traceback)[-MOST_WORDS:],
            "iteration": message.iteration if message is not None else "",
            "held": datetime.now(UTC),
            "expires": self._retained(),
        }
        with self.atomic() as unit:
            if message is not None:
                self._fail_shard(message, f"{error_type}: {error}", holder_died)
            entity = make_entity(self._letter_key(letter_id), values)
            entity.exclude_from_indexes = entity.exclude_from_indexes - {"error_type"}
            put_bytes(unit, entity, "body", letter.task.body, insert=True)

    @abstractmethod
    def _fail_shard(self, message: Any, error: str, holder_died: bool) -> None:
        """Fail the shard that a slice's dead letter is of, and its iteration."""

    def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        error_type: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[DeadLetter]:
        """Return the newest dead letters."""
        wanted = {"queue": queue, "error_type": error_type}
        filters: list[tuple[str, str, Any]] = [
            (name, "=", value) for name, value in wanted.items() if value is not None
        ]
        if before is not None:
            filters.append(("__key__", ">", self._letter_key(before)))
        return [self._read_letter(entity) for entity in self._query(LETTER, *filters, limit=limit)]

    def group_dead_letters(self, *, most: int, cap: int) -> tuple[list[LetterGroup], bool]:
        """Group the newest dead letters: each entity that is read is paid for."""
        entities = self._query(LETTER, limit=MOST_GROUPED + 1)
        groups: dict[str, LetterGroup] = {}
        for entity in entities[:MOST_GROUPED]:
            kind, moment = entity["error_type"], to_moment(entity["held"])
            group = groups.get(kind) or LetterGroup(error_type=kind, number=0, error=entity["error"], newest=moment)
            groups[kind] = dataclasses.replace(group, number=group.number + 1)
        found = sorted(groups.values(), key=lambda group: group.error_type)
        return found[:most], len(entities) <= MOST_GROUPED and len(found) <= most

    def _read_letter(self, entity: Any) -> DeadLetter:
        return DeadLetter(
            id=_LAST_ID - entity.key.id,
            task=read_task(entity, self._read_bytes(entity, "body")),
            attempts=entity["attempts"],
            error_type=entity["error_type"],
            error=entity["error"],
            traceback=entity["traceback"],
            created=to_moment(entity["held"]),
        )

    def get_dead_letter(self, letter_id: int) -> DeadLetter | None:
        """Return one dead letter."""
        if not 0 < letter_id < _LAST_ID:
            return None
        [entity] = self._read([self._letter_key(letter_id)])
        return None if entity is None else self._read_letter(entity)

    def delete_dead_letters(self, ids: Sequence[int]) -> int:
        """Drop dead letters."""
        keys = [self._letter_key(letter_id) for letter_id in dict.fromkeys(ids) if 0 < letter_id < _LAST_ID]
        # So many as one transaction has room for, with their parts.
        return sum(self._drop_letters(keys[first : first + 100]) for first in range(0, len(keys), 100))

    def _drop_letters(self, keys: Sequence[Any]) -> int:
        def drop() -> int:
            with self.atomic() as unit:
                found = [entity for entity in unit.load(keys) if entity is not None]
                for entity in found:
                    unit.delete([entity.key, *part_keys(self.client, entity)])
                return len(found)

        return self.run(drop)

    def delete_letters_of(self, iteration_id: str) -> None:
        """Drop the dead letters of an iteration that goes on."""
        found = self._query(LETTER, ("iteration", "=", iteration_id), keys_only=True)
        self._drop_letters([entity.key for entity in found])

    # Payloads

    def keep_payload(self, start_id: str, data: bytes, until: datetime) -> None:
        """Keep what a task carries.

        Raises:
            TaskTooLargeError: it is more than a commit on Datastore takes.
        """
        if len(data) > MOST_PAYLOAD:
            raise TaskTooLargeError(
                f"The arguments of this call take {len(data):,} bytes packed, and Datastore, where "
                f"SOC_TASKS['STATE'] keeps them, takes {MOST_PAYLOAD:,} at a time. Keep the data in entities or in a "
                "file of your own, and pass its key."
            )
        entity = make_entity(self.client.key(PAYLOAD, start_id), {"expires": until})
        with self.atomic() as unit:
            put_bytes(unit, entity, "data", data, insert=True)

    def get_payload(self, start_id: str) -> bytes | None:
        """Return what was kept for a task."""
        [entity] = self._read([self.client.key(PAYLOAD, start_id)])
        return None if entity is None else self._read_bytes(entity, "data")

    def clear_payloads(self, start_ids: Sequence[str]) -> None:
        """Drop what was kept for tasks."""
        keys = [self.client.key(PAYLOAD, start_id) for start_id in dict.fromkeys(start_ids)]
        if any(entity is not None for entity in self._read(keys)):
            self.run(lambda: self._clear(keys))

    def _clear(self, keys: Sequence[Any]) -> None:
        with self.atomic() as unit:
            for entity in unit.load(keys):
                if entity is not None:
                    unit.delete(part_keys(self.client, entity))
                    empty = make_entity(entity.key, {"expires": entity["expires"]})
                    put_bytes(unit, empty, "data", b"", insert=False)

    def _sweep_payloads(self, limit: int) -> int:
        """Delete payloads past their time, unless their iteration goes on: it may be paused for long."""
        due = self._query(PAYLOAD, ("expires", "<", datetime.now(UTC)), limit=limit)
        iterations = self._read([self.client.key(ITERATION, entity.key.name) for entity in due])
        needed = {entity.key.name for entity in iterations if entity is not None}
        gone = [entity for entity in due if entity.key.name not in needed]
        self._delete([key for entity in gone for key in (entity.key, *part_keys(self.client, entity))])
        for entity in due:
            if entity.key.name in needed:
                self._extend(entity.key)
        return len(gone)

    def _extend(self, key: Any) -> None:
        """Keep a payload for another while, so that it is not in the way of those that go."""
        [entity] = self._read([key])
        if entity is None:
            return
        data = self._read_bytes(entity, "data")

        def extend() -> None:
            with self.atomic() as unit:
                now = unit.get(key)
                if now is not None and bytes(now["data"]) == bytes(entity["data"]):
                    put_bytes(unit, make_entity(key, {"expires": self._retained()}), "data", data, insert=False)

        self.run(extend)
