"""Outbox and receipts on Datastore: entities that commit with a transaction of the state's client, or of another one.

All tasks of one transaction have the same beginning of their keys, under which no entity is: so they count as one
entity group where that matters.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from soc_tasks.errors import ConfigurationError
from soc_tasks.state import datastore_units
from soc_tasks.state.base import HeldId
from soc_tasks.state.datastore_base import DatastoreBase
from soc_tasks.state.datastore_records import (
    GROUP,
    OUTBOX,
    RECEIPT,
    make_entity,
    part_keys,
    put_bytes,
    read_task,
    task_values,
)
from soc_tasks.state.transactions import ClientAlias, find_alias
from soc_tasks.state.undone import UndoneError
from soc_tasks.values import Task

#: For how long an entity of the outbox belongs to whoever took it, seconds.
OUTBOX_LEASE: Final = 30.0
#: How many are leased in one transaction: Datastore's emulator takes 25 entity groups.
_AT_ONCE: Final = 20


class DatastoreOutbox(DatastoreBase):
    """Writes, leases and drops entities of the outbox."""

    def claim_receipt(self, start_id: str, using: str) -> bool:
        """Note that a task ran."""
        if not isinstance(using, ClientAlias):
            raise ConfigurationError(
                f"atomic on {using!r}, an alias of DATABASES, needs SOC_TASKS['STATE'] = 'django'; the state is in "
                "Datastore, and what commits with it are writes of its client. Leave `using` out, or atomic."
            )
        with datastore_units.atomic(using.client) as unit:
            key = using.client.key(RECEIPT, start_id)
            if unit.get(key) is not None:
                return False
            unit.put(make_entity(key, {"expires": self._retained()}), insert=True)
        return True

    def hold_tasks(self, tasks: Sequence[Task], using: str) -> list[HeldId]:
        """Write entities, leased to the writer until its transaction is over."""
        alias = find_alias(using)
        assert isinstance(alias, ClientAlias)  # nothing else has an outbox here
        until = datetime.now(UTC) + timedelta(seconds=OUTBOX_LEASE)
        ids: list[HeldId] = []
        with datastore_units.atomic(alias.client) as unit:
            unit.outbox = unit.outbox or uuid.uuid4().hex
            for task in tasks:
                unit.held += 1
                held = f"{unit.outbox}/{unit.held}"
                values = {**task_values(task), "leased_until": until, "attempts": 0}
                entity = make_entity(_make_key(alias.client, held), values)
                put_bytes(unit, entity, "body", task.body, insert=True)
                ids.append(held)
        return ids

    def take_held(self, using: str, *, limit: int = 100) -> Iterator[tuple[HeldId, Task]]:
        """Lease held tasks, oldest first."""
        free = self._query(
            OUTBOX,
            ("leased_until", "<", datetime.now(UTC)),
            order=["leased_until"],
            limit=limit,
            keys_only=True,
        )
        keys = sorted((entity.key for entity in free), key=lambda key: (key.parent.name, key.id))
        taken: list[Any] = []
        for first in range(0, len(keys), _AT_ONCE):
            taken += self._lease(keys[first : first + _AT_ONCE])
        for entity in sorted(taken, key=lambda entity: (entity["held"], entity.key.parent.name, entity.key.id)):
            held = f"{entity.key.parent.name}/{entity.key.id}"
            yield held, read_task(entity, self._read_bytes(entity, "body"))

    def _lease(self, keys: Sequence[Any]) -> list[Any]:
        """Lease those of some entities that are still free; none where another relay is at it."""

        def lease() -> list[Any]:
            now, taken = datetime.now(UTC), []
            with self.atomic() as unit:
                for entity in unit.load(keys):
                    if entity is None or entity["leased_until"] >= now:
                        continue
                    values = {
                        **entity,
                        "leased_until": now + timedelta(seconds=OUTBOX_LEASE),
                        "attempts": entity["attempts"] + 1,
                    }
                    leased = make_entity(entity.key, values)
                    unit.put(leased)
                    taken.append(leased)
            return taken

        try:
            return self.run(lease)
        except UndoneError:
            return []

    def outbox_aliases(self) -> list[str]:
        """Return the state's own place."""
        return [self.alias]

    def has_outbox(self, alias: str) -> bool:
        """Tell whether tasks can be held in a place: with transactions of a client of Datastore."""
        return isinstance(alias, ClientAlias)

    def open_outboxes(self) -> set[str]:
        """Return the places whose outbox this thread is writing to in an open transaction."""
        return {ClientAlias(unit.client) for unit in datastore_units.find_units() if unit.held}

    def find_held(self, tasks: Sequence[Task], using: str) -> set[tuple[str, str]]:
        """Return queue and name of those of `tasks` that wait in the outbox, or will with an open transaction."""
        names = {task.name for task in tasks}
        found = {
            (entity["queue"], entity["name"])
            for unit in datastore_units.find_units()
            for entity in unit.find_changed(OUTBOX)
            if entity["name"] in names
        }
        for name in names:
            found |= {(entity["queue"], name) for entity in self._query(OUTBOX, ("name", "=", name))}
        return found

    def drop_held(self, using: str, ids: Sequence[HeldId]) -> None:
        """Delete entities of the outbox, with their parts."""
        keys = [_make_key(self.client, str(held)) for held in ids]
        large = [entity for entity in self._read(keys) if entity is not None and entity["parts"]] if keys else []
        parts = [key for entity in large for key in part_keys(self.client, entity)]
        self._delete([*keys, *parts])


def _make_key(client: Any, held: str) -> Any:
    """Return the key of a task by what it is known as."""
    group, _, number = held.partition("/")
    return client.key(GROUP, group, OUTBOX, int(number))
