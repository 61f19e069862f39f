"""The state in Google's Datastore: no SQL at all. `get_client()` gives the client that atomic batches write with.

Iterations, shards, payloads, outbox, receipts and dead letters are entities; their kinds begin with SocTasks. What is
read to be changed is read in a transaction and written with it; what is only looked at is read past it. Queries need
built-in indexes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from soc_tasks.state import datastore_units
from soc_tasks.state.base import BaseState, IterationRecord, ShardRecord
from soc_tasks.state.datastore_client import get_client
from soc_tasks.state.datastore_figures import DatastoreFigures, read_shard
from soc_tasks.state.datastore_ledger import DatastoreLedger
from soc_tasks.state.datastore_letters import DatastoreLetters
from soc_tasks.state.datastore_outbox import DatastoreOutbox
from soc_tasks.state.datastore_records import ITERATION, LETTER, RECEIPT, SHARD, read_record, write_record
from soc_tasks.state.datastore_units import Unit

__all__ = ["DatastoreState", "get_client"]

#: Seconds that an atomic batch may take: Datastore gives a transaction up that was idle for 60.
_MOST_SECONDS: Final = 20.0
#: Entities of an atomic batch that steers its own size: 500 fit into a commit, and a view may write several for each.
_MOST_ENTITIES: Final = 100
#: How many entities of a kind one sweep deletes at most.
SWEEP_ENTITIES: Final = 500


class DatastoreState(DatastoreOutbox, DatastoreLetters, DatastoreLedger, DatastoreFigures, BaseState):
    """Keeps records as entities of Datastore."""

    def bound_batch(self, seconds: float, atomic: bool) -> float:
        """Return how long a batch should take; an atomic one less than Datastore keeps a transaction open."""
        return min(seconds, _MOST_SECONDS) if atomic else seconds

    def bound_size(self, most: int, atomic: bool) -> int:
        """Return how many entities a batch that steers itself may have."""
        return min(most, _MOST_ENTITIES) if atomic else most

    def read_batch(self, fetch: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """Fetch past the open transaction, which may not query at will, and read what was found again in it."""
        unit = datastore_units.find_open(self.client)
        if unit is None:
            return fetch()
        with datastore_units.outside(self.client):
            entities, next_key = fetch()
        if not all(_is_whole_entity(entity) for entity in entities):
            return entities, next_key
        with datastore_units.translated():
            keys = [entity.key for entity in entities]
            found = {entity.key: entity for entity in self.client.get_multi(keys, transaction=unit.transaction)}
        # What was deleted in the meantime is not there any more.
        return [found[key] for key in keys if key in found], next_key

    # Iterations

    def _iteration_key(self, iteration_id: str) -> Any:
        return self.client.key(ITERATION, iteration_id)

    def _shard_key(self, iteration_id: str, index: int) -> Any:
        return self.client.key(SHARD, f"{iteration_id}-{index}")

    def create_iteration(self, iteration: IterationRecord, shards: Sequence[ShardRecord]) -> bool:
        """Keep a new iteration with its shards."""
        key, now = self._iteration_key(iteration.id), datetime.now(UTC)
        with self.atomic() as unit:
            if unit.get(key) is not None:
                return False
            entity = write_record(key, iteration, without=("id", "created"), created=now)
            self._put_iteration(unit, entity, kept=len(shards), insert=True)
            for shard in shards:
                self._put_shard(unit, shard, now, insert=True)
        return True

    @staticmethod
    def _put_iteration(unit: Unit, entity: Any, *, kept: int, held: int = 0, insert: bool = False) -> None:
        """Write an iteration's entity, with how many shards are kept for it, and how often it was held."""
        entity.update({"kept": kept, "held": held})
        entity.exclude_from_indexes = {*entity.exclude_from_indexes, "kept", "held"}
        unit.put(entity, insert=insert)

    def _change_iteration(self, iteration_id: str, change: Callable[[IterationRecord], None], add: int = 0) -> None:
        """Change an iteration as it stands in the open transaction, and how many shards are kept for it."""
        with self.atomic() as unit:
            before = unit.get(self._iteration_key(iteration_id))
            if before is None:
                return
            record = _read_iteration(before)
            change(record)
            expires = None if record.finished is None else self._retained(record.finished)
            entity = write_record(
                before.key, record, without=("id", "created"), created=before["created"], expires=expires
            )
            self._put_iteration(unit, entity, kept=before["kept"] + add, held=before.get("held", 0))

    def _put_shard(self, unit: Unit, shard: ShardRecord, now: datetime | None = None, *, insert: bool = False) -> None:
        """Write a shard; one that runs can be found by how long it has had no progress."""
        watched = (shard.progressed_at or now or datetime.now(UTC)) if shard.status == "running" else None
        key = self._shard_key(shard.iteration, shard.index)
        unit.put(write_record(key, shard, without=("iteration", "index"), watched=watched), insert=insert)

    def add_shard(self, shard: ShardRecord) -> None:
        """Keep one more shard."""
        with self.atomic() as unit:
            self._put_shard(unit, shard, insert=True)
            self._change_iteration(shard.iteration, lambda record: None, add=1)

    def drop_shards(self, iteration_id: str) -> None:
        """Delete all shards of an iteration."""
        with self.atomic() as unit:
            iteration = unit.get(self._iteration_key(iteration_id))
            if iteration is not None:
                kept = iteration["kept"]
                unit.delete([self._shard_key(iteration_id, index) for index in range(kept)])
                self._change_iteration(iteration_id, lambda record: None, add=-kept)

    def get_iteration(self, iteration_id: str, *, lock: bool = False) -> IterationRecord | None:
        """Return one iteration; of two transactions that hold it one is undone, whatever else they write."""
        if not iteration_id:
            return None
        key = self._iteration_key(iteration_id)
        unit = datastore_units.find_open(self.client) if lock else None
        entity = self._read([key])[0] if unit is None else unit.get(key)
        if unit is not None and entity is not None:
            # A write that changes nothing might not count as one.
            self._put_iteration(unit, entity, kept=entity["kept"], held=entity.get("held", 0) + 1)
        return None if entity is None else _read_iteration(entity)

    def list_iterations(self, *, limit: int = 100, before: IterationRecord | None = None) -> list[IterationRecord]:
        """Return the newest iterations, or those before one of them: times have microseconds, and no two are the same.

        Where two are, after all, the second one is left out of the next page.
        """
        filters = [] if before is None else [("created", "<", before.created)]
        found = self._query(ITERATION, *filters, order=["-created"], limit=limit)
        return [_read_iteration(entity) for entity in found]

    def save_iteration(self, iteration: IterationRecord) -> None:
        """Write status, finished and error."""

        def change(record: IterationRecord) -> None:
            record.status, record.finished, record.error = iteration.status, iteration.finished, iteration.error

        self._change_iteration(iteration.id, change)

    def save_options(self, iteration: IterationRecord) -> None:
        """Write the options."""

        def change(record: IterationRecord) -> None:
            record.options = iteration.options

        self._change_iteration(iteration.id, change)

    def save_concurrency(self, iteration: IterationRecord) -> None:
        """Write concurrency and parked."""

        def change(record: IterationRecord) -> None:
            record.concurrency, record.parked = iteration.concurrency, iteration.parked

        self._change_iteration(iteration.id, change)

    def set_wanted(self, iteration_id: str, wanted: bool) -> None:
        """Write the hint."""

        def change(record: IterationRecord) -> None:
            record.wanted = wanted

        self._change_iteration(iteration_id, change)

    def list_shards(self, *iteration_ids: str) -> list[ShardRecord]:
        """Return the shards of iterations by index."""
        iterations = self._read([self._iteration_key(iteration_id) for iteration_id in iteration_ids])
        keys = [
            self._shard_key(entity.key.name, index)
            for entity in iterations
            if entity is not None
            for index in range(entity["kept"])
        ]
        return [read_shard(entity) for entity in self._read(keys) if entity is not None]

    def read_progress(self, iteration_id: str) -> tuple[IterationRecord, list[ShardRecord]] | None:
        """Return what tells of progress: entities are read whole."""
        iteration = self.get_iteration(iteration_id)
        return None if iteration is None else (iteration, self.list_shards(iteration_id))

    def lock_shards(self, iteration_id: str) -> None:
        """Read all shards of an iteration in the open transaction."""
        with self.atomic() as unit:
            self._load_shards(unit, iteration_id)

    def _load_shards(self, unit: Unit, iteration_id: str) -> list[ShardRecord]:
        [iteration] = self._read([self._iteration_key(iteration_id)])
        count = 0 if iteration is None else iteration["kept"]
        entities = unit.load([self._shard_key(iteration_id, index) for index in range(count)])
        return [read_shard(entity) for entity in entities if entity is not None]

    @contextmanager
    def locked_shard(
        self, iteration_id: str, index: int, *, wait: bool = False, for_view: bool = False
    ) -> Iterator[ShardRecord | None]:
        """Open a transaction that has read the shard: whoever changes it meanwhile undoes one of both."""
        key = self._shard_key(iteration_id, index)

        def enter() -> tuple[ExitStack, Any]:
            with ExitStack() as opening:
                entity = opening.enter_context(self.atomic()).get(key)
                return opening.pop_all(), entity

        opened, entity = datastore_units.run_again(enter) if wait else enter()
        with opened:
            yield None if entity is None else read_shard(entity)

    def lock_free_shard(self, iteration_id: str, index: int) -> ShardRecord | None:
        """Read one more shard in the open transaction."""
        with self.atomic() as unit:
            entity = unit.get(self._shard_key(iteration_id, index))
        return None if entity is None else read_shard(entity)

    def save_shard(self, shard: ShardRecord) -> None:
        """Write a shard."""
        with self.atomic() as unit:
            self._put_shard(unit, shard)

    def resume_shards(self, iteration_id: str) -> list[ShardRecord]:
        """Set the shards that are not done running again."""
        with self.atomic() as unit:
            shards = [shard for shard in self._load_shards(unit, iteration_id) if shard.status != "done"]
            for shard in shards:
                shard.status, shard.attempts, shard.error, shard.task = "running", 0, "", ""
                shard.advanced = False
                shard.epoch += 1
                shard.progressed_at = self.now()
                self._put_shard(unit, shard)
        return shards

    def _fail_shard(self, message: Any, error: str, holder_died: bool) -> None:
        """Fail the shard that a slice's dead letter is of, and its iteration."""
        with self.atomic() as unit:
            entity = unit.get(self._shard_key(message.iteration, message.shard))
            shard = None if entity is None else read_shard(entity)
            if shard is None or (shard.step, shard.epoch, shard.status) != (message.step, message.epoch, "running"):
                return
            if not holder_died:
                self.check_unheld(shard, message)
            shard.status, shard.owner, shard.until, shard.error = "failed", "", None, error
            self._put_shard(unit, shard)

            def fail(record: IterationRecord) -> None:
                if record.status in ("running", "paused"):
                    record.status, record.error, record.finished = "failed", error, datetime.now(UTC)

            self._change_iteration(message.iteration, fail)

    def touch_stuck_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        """Return running shards without progress."""
        found = self._query(SHARD, ("watched", "<", before), order=["watched"], limit=limit, keys_only=True)
        touched = [self.run(lambda key=entity.key: self._touch(key, before)) for entity in found]  # type: ignore[misc]
        return [shard for shard in touched if shard is not None]

    def _touch(self, key: Any, before: datetime) -> ShardRecord | None:
        now = self.now()
        with self.atomic() as unit:
            entity = unit.get(key)
            if entity is None or entity.get("watched", now) >= before:
                return None
            shard = read_shard(entity)
            iteration = self.get_iteration(shard.iteration)
            if iteration is None or iteration.status != "running":
                # It is looked for no more until it is resumed.
                unit.put(write_record(key, shard, without=("iteration", "index")))
                return None
            if shard.until is not None and shard.until > now:
                unit.put(write_record(key, shard, without=("iteration", "index"), watched=shard.until))
                return None
            shard.progressed_at = now
            self._put_shard(unit, shard)
        return shard

    def renew_lease(self, iteration_id: str, index: int, owner: str, until: datetime) -> bool:
        """Extend a lease."""

        def renew() -> bool:
            with self.locked_shard(iteration_id, index) as shard:
                if shard is None or shard.owner != owner:
                    return False
                shard.until = until
                self.save_shard(shard)
            return True

        return self.run(renew)

    def finish_shard(self, iteration_id: str) -> int:
        """Count one shard less, on the iteration's entity."""
        left = []

        def change(record: IterationRecord) -> None:
            record.unfinished -= 1
            left.append(record.unfinished)

        self._change_iteration(iteration_id, change)
        return left[-1]

    # Retention

    def _find_rest(self, iteration: Any) -> list[Any]:
        """Return the keys of what goes with an iteration: its shards and failed items."""
        name = iteration.key.name
        items = self._find_items(name, 0, None, keys_only=True)
        return [*(self._shard_key(name, index) for index in range(iteration["kept"])), *(item.key for item in items)]

    def sweep(self) -> int:
        """Delete receipts, dead letters, payloads and ended iterations past their time, some at a time."""
        past, gone = ("expires", "<", datetime.now(UTC)), self._sweep_payloads(SWEEP_ENTITIES)
        for kind in (RECEIPT, LETTER, ITERATION):
            found = self._query(kind, past, limit=SWEEP_ENTITIES, keys_only=kind == RECEIPT)
            keys = [entity.key for entity in found]
            if kind == ITERATION:
                keys = [key for entity in found for key in self._find_rest(entity)] + keys
            elif kind == LETTER:
                keys = self._find_parts(keys) + keys
            # What belongs to an entity goes before it, or nobody would find it any more.
            self._delete(keys)
            gone += len(found)
        return gone


def _read_iteration(entity: Any) -> IterationRecord:
    return read_record(IterationRecord, entity, id=entity.key.name)


def _is_whole_entity(value: Any) -> bool:
    """Tell whether something is an entity with all of its properties, and not a model's instance or a projection."""
    key = getattr(value, "key", None)
    return hasattr(key, "flat_path") and bool(value)
