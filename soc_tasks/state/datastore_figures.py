"""Figures from entities of Datastore, by queries that read keys alone where they only count."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import Any, Final

from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.state.datastore_base import DatastoreBase
from soc_tasks.state.datastore_records import ITERATION, LETTER, OUTBOX, SHARD, read_record, to_moment

#: How many of the newest iterations are looked through for those that have not ended: there is no index of these.
_LOOKED_THROUGH: Final = 100


class DatastoreFigures(DatastoreBase):
    """Counts entities up to a limit."""

    @abstractmethod
    def _letter_key(self, letter_id: int) -> Any:
        """Return the key of a dead letter."""

    @abstractmethod
    def list_iterations(self, *, limit: int = 100) -> list[IterationRecord]:
        """Return the newest iterations."""

    @abstractmethod
    def list_shards(self, *iteration_ids: str) -> list[ShardRecord]:
        """Return the shards of iterations by index."""

    def count_dead_letters(
        self,
        most: int,
        *,
        since: datetime | None = None,
        queue: str | None = None,
        error_type: str | None = None,
        up_to: int | None = None,
    ) -> int:
        """Return how many dead letters are kept."""
        filters: list[tuple[str, str, Any]] = [] if since is None else [("expires", ">=", self._retained(since))]
        wanted = (("queue", queue), ("error_type", error_type))
        filters += [(name, "=", value) for name, value in wanted if value is not None]
        if up_to is not None:
            filters.append(("__key__", ">=", self._letter_key(up_to)))
        return len(self._query(LETTER, *filters, limit=most, keys_only=True))

    def count_held(self, most: int) -> tuple[int, datetime | None]:
        """Return how many tasks wait in the outbox, and when the oldest of them was made."""
        count = len(self._query(OUTBOX, limit=most, keys_only=True))
        first = self._query(OUTBOX, order=["leased_until"], limit=1) if count else []
        return count, to_moment(first[0]["held"]) if first else None

    def list_open_iterations(self, limit: int) -> list[tuple[IterationRecord, list[ShardRecord]]]:
        """Return the newest iterations that run or are paused, of the newest hundred of all."""
        found = self.list_iterations(limit=_LOOKED_THROUGH)
        records = [record for record in found if record.status in ("running", "paused")][:limit]
        shards: dict[str, list[ShardRecord]] = {record.id: [] for record in records}
        for shard in self.list_shards(*shards) if shards else ():
            shards[shard.iteration].append(shard)
        return [(record, shards[record.id]) for record in records]

    def list_stalled_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        """Return running shards without progress, longest first."""
        found = self._query(SHARD, ("watched", "<", before), order=["watched"], limit=limit)
        shards = [read_shard(entity) for entity in found]
        ids = {shard.iteration for shard in shards}
        read = self._read([self.client.key(ITERATION, iteration) for iteration in ids])
        running = {entity.key.name for entity in read if entity is not None and entity["status"] == "running"}
        now = datetime.now(UTC)
        return [shard for shard in shards if shard.iteration in running and (shard.until is None or shard.until <= now)]


def read_shard(entity: Any) -> ShardRecord:
    """Return a shard's entity as a record."""
    iteration, _, index = entity.key.name.rpartition("-")
    return read_record(ShardRecord, entity, iteration=iteration, index=int(index))
