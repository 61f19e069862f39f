"""The ledger of failed items on Datastore."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from soc_tasks.state.base import ShardRecord
from soc_tasks.state.datastore_base import DatastoreBase, make_id
from soc_tasks.state.datastore_records import FAILED_ITEM, MOST_WORDS, read_record, write_record
from soc_tasks.state.kept_tasks import spell_out
from soc_tasks.values import FailedItem


class DatastoreLedger(DatastoreBase):
    """Keeps failed items as entities whose ids rise with time."""

    @abstractmethod
    def list_shards(self, *iteration_ids: str) -> list[ShardRecord]:
        """Return the shards of iterations by index."""

    def _item_key(self, item_id: int) -> Any:
        return self.client.key(FAILED_ITEM, item_id)

    def _item_entity(self, key: Any, item: FailedItem, created: datetime) -> Any:
        entity = write_record(key, item, without=("id", "iteration", "created"), iteration=item.iteration)
        texts = {
            "entity": spell_out(item.entity)[:255],
            "error_type": spell_out(item.error_type)[:255],
            "error": spell_out(item.error)[:MOST_WORDS],
            "traceback": spell_out(item.traceback)[-MOST_WORDS:],
        }
        entity.update({**texts, "created": created})
        entity.exclude_from_indexes = {*entity.exclude_from_indexes, "created"}
        return entity

    def add_failed_item(self, item: FailedItem) -> None:
        """Keep a failed item."""
        with self.atomic() as unit:
            unit.put(self._item_entity(self._item_key(make_id()), item, datetime.now(UTC)), insert=True)

    def _find_items(self, iteration_id: str, since: int, limit: int | None, *, keys_only: bool) -> list[Any]:
        filters: list[tuple[str, str, Any]] = [("iteration", "=", iteration_id)]
        if since > 0:
            filters.append(("__key__", ">=", self._item_key(since)))
        return self._query(FAILED_ITEM, *filters, limit=limit, keys_only=keys_only)

    def _get_items(self, iteration_id: str, ids: Sequence[int]) -> list[Any]:
        keys = [self._item_key(item_id) for item_id in sorted(set(ids)) if 0 < item_id < 2**63]
        return [entity for entity in self._read(keys) if entity is not None and entity["iteration"] == iteration_id]

    def list_failed_items(
        self, iteration_id: str, *, since: int = 0, ids: Sequence[int] | None = None, limit: int = 100
    ) -> list[FailedItem]:
        """Return failed items by their ids."""
        if ids is None:
            found = self._find_items(iteration_id, since, limit, keys_only=False)
        else:
            found = [entity for entity in self._get_items(iteration_id, ids) if entity.key.id >= since][:limit]
        return [read_record(FailedItem, entity, id=entity.key.id) for entity in found]

    def count_failed_items(self, iteration_id: str, *, ids: Sequence[int] | None = None) -> tuple[int, int]:
        """Return how many failed items there are, and the highest id."""
        if ids is None:
            found = self._find_items(iteration_id, 0, None, keys_only=True)
        else:
            found = self._get_items(iteration_id, ids)
        return len(found), max((entity.key.id for entity in found), default=0)

    def save_failed_item(self, item: FailedItem) -> None:
        """Write error and attempts."""
        with self.atomic() as unit:
            before = unit.get(self._item_key(item.id))
            if before is None:
                return
            kept = read_record(FailedItem, before, id=item.id)
            new = {name: getattr(item, name) for name in ("error_type", "error", "traceback", "attempts")}
            unit.put(self._item_entity(before.key, dataclasses.replace(kept, **new), before["created"]))

    def drop_failed_items(self, ids: Sequence[int]) -> int:
        """Forget items."""
        keys = [self._item_key(item_id) for item_id in dict.fromkeys(ids) if 0 < item_id < 2**63]
        if not keys:
            return 0
        with self.atomic() as unit:
            found = [entity.key for entity in unit.load(keys) if entity is not None]
            unit.delete(found)
        return len(found)

    def sum_shards(self, iteration_id: str) -> tuple[int, int]:
        """Return how many entities are done, and given up."""
        shards = self.list_shards(iteration_id)
        return sum(shard.done for shard in shards), sum(shard.failed for shard in shards)
