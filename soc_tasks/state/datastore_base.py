"""What all parts of the state on Datastore have in common: the client, transactions, and reads past them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from soc_tasks.conf import get_settings
from soc_tasks.state import datastore_units
from soc_tasks.state.datastore_client import get_client
from soc_tasks.state.datastore_records import PART, part_keys
from soc_tasks.state.datastore_units import MOST_ENTITIES, MOST_KEYS, Unit, outside, translated
from soc_tasks.state.transactions import ClientAlias

T = TypeVar("T")

#: Of an id, beside its moment.
_CHANCE_BITS: Final = 12


class DatastoreBase:
    """A client, and how entities are read and written with it."""

    @property
    def client(self) -> Any:
        """Return the client: what a view writes with it in an atomic batch is part of that."""
        return get_client()

    @property
    def alias(self) -> str:
        """Return the name of the place that the client writes to."""
        return ClientAlias(self.client)

    def atomic(self) -> AbstractContextManager[Unit]:
        """Open a transaction, or a part of the one that is open."""
        return datastore_units.atomic(self.client)

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a transaction, and again where Datastore undoes it."""

        def attempt() -> T:
            with self.atomic():
                return work()

        return attempt() if datastore_units.find_open(self.client) is not None else datastore_units.run_again(attempt)

    def _read(self, keys: Sequence[Any], client: Any = None) -> list[Any]:
        """Return entities as they are, or as the open transaction leaves them; without locks. None: it is not there."""
        client = client or self.client
        unit = datastore_units.find_open(client)
        found: dict[Any, Any] = {} if unit is None else unit.peek(keys)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        with translated(), outside(client):
            for first in range(0, len(missing), MOST_KEYS):
                found.update((entity.key, entity) for entity in client.get_multi(missing[first : first + MOST_KEYS]))
        return [found.get(key) for key in keys]

    def _query(
        self,
        kind: str,
        *filters: tuple[str, str, Any],
        order: Sequence[str] = (),
        limit: int | None = None,
        ancestor: Any = None,
        client: Any = None,
        keys_only: bool = False,
    ) -> list[Any]:
        """Return what a query gives, past the open transaction. All of them need built-in indexes alone."""
        from google.cloud.datastore.query import PropertyFilter

        query = (client or self.client).query(kind=kind, ancestor=ancestor, order=order)
        for one in filters:
            query.add_filter(filter=PropertyFilter(*one))
        if keys_only:
            query.keys_only()
        with translated(), outside(client or self.client):
            return list(query.fetch(limit=limit))

    def _read_bytes(self, entity: Any, name: str) -> bytes:
        """Return the bytes of an entity, those of its parts with them."""
        parts = self._read(part_keys(self.client, entity))
        return bytes(entity[name]) + b"".join(bytes(part["data"]) for part in parts if part is not None)

    def _delete(self, keys: Sequence[Any]) -> None:
        """Delete entities at once, in no transaction."""
        with translated(), outside(self.client):
            for first in range(0, len(keys), MOST_ENTITIES):
                self.client.delete_multi(keys[first : first + MOST_ENTITIES])

    def _find_parts(self, keys: Sequence[Any]) -> list[Any]:
        """Return the keys of all parts of entities."""
        return [part.key for key in keys for part in self._query(PART, ancestor=key, keys_only=True) if part.key != key]

    @staticmethod
    def _retained(since: datetime | None = None) -> datetime:
        """Return when what is kept for the retention time goes."""
        return (since or datetime.now(UTC)) + timedelta(days=get_settings().retention_days)


def make_id() -> int:
    """Return an id that rises with time, to the microsecond, and that no other process makes."""
    return (time.time_ns() // 1000 << _CHANCE_BITS) | secrets.randbits(_CHANCE_BITS)
