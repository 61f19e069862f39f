"""The state in Django's databases.

Iterations and dead letters live on `DATABASE`, outbox and receipts on the alias of the caller's transaction.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import simplejson
from django.db import OperationalError, connections
from django.db.models import Exists, F, OuterRef, Q

from soc_tasks.conf import get_settings
from soc_tasks.engine.clock import from_micros
from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.locking import LockingStore
from soc_tasks.meta import read_meta
from soc_tasks.models import DeadLetterRow, IterationRow, PayloadRow, ReceiptRow, ShardRow
from soc_tasks.state.base import BaseState, DeadLetter, IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.breather import SqliteBreather
from soc_tasks.state.django_figures import (
    ITERATION_FIELDS,
    PROGRESS_FIELDS,
    DjangoFigures,
    find_stalled,
    make_iteration,
    read_iteration,
)
from soc_tasks.state.django_ledger import DjangoLedger
from soc_tasks.state.django_letters import DjangoLetters
from soc_tasks.state.django_outbox import DjangoOutbox
from soc_tasks.state.kept_tasks import spell_out
from soc_tasks.state.locks import is_lock_error
from soc_tasks.state.rows import insert_or_ignore, write_task
from soc_tasks.state.shard_rows import IterationTable, ShardTable

logger = logging.getLogger("soc_tasks")

#: The longest that a batch steers itself to where nobody else can write meanwhile: requests notice more.
SQLITE_BATCH_SECONDS = 0.2

#: How many rows of a kind one sweep deletes at most, so that it never holds the database for long.
SWEEP_ROWS = 1000

_SHARD_FIELDS = tuple(field.name for field in dataclasses.fields(ShardRecord))
_SHARD_CHANGES = tuple(name for name in _SHARD_FIELDS if name not in ("iteration", "index"))


def _read_shard(row: ShardRow) -> ShardRecord:
    values = {name: getattr(row, name) for name in _SHARD_CHANGES}
    return ShardRecord(iteration=row.iteration_id, index=row.index, **values)


def _make_row(shard: ShardRecord) -> ShardRow:
    values = {name: getattr(shard, name) for name in _SHARD_CHANGES}
    return ShardRow(iteration_id=shard.iteration, index=shard.index, **values)


class DjangoState(DjangoOutbox, DjangoLedger, DjangoFigures, DjangoLetters, BaseState):
    """Keeps records in the tables of soc_tasks.models."""

    def __init__(self) -> None:
        self._alias = get_settings().database
        super().__init__(self._alias)

    @property
    def alias(self) -> str:
        """Return `DATABASE`."""
        return self._alias

    @cached_property
    def _shards(self) -> ShardTable:
        return ShardTable(self._alias, _SHARD_CHANGES)

    @cached_property
    def _iterations(self) -> IterationTable:
        return IterationTable(self._alias, ITERATION_FIELDS)

    def atomic(self) -> AbstractContextManager[Any]:
        """Open a transaction, READ COMMITTED whatever the level of the site's, or a part of the one that is open."""
        store = get_store(self.alias)
        return store.writing() if isinstance(store, LockingStore) else super().atomic()

    def now(self) -> datetime:
        """Return the time by the database's clock, where the machines that share it may have others."""
        return from_micros(get_store(self.alias).clock.now())

    def make_breather(self) -> Callable[[], None]:
        """Return the pauses that SQLite's writers need; other databases queue them by themselves."""
        return SqliteBreather() if connections[self.alias].vendor == "sqlite" else super().make_breather()

    def bound_batch(self, seconds: float, atomic: bool) -> float:
        """Return how long a batch should take; on SQLite an atomic one is the only writer for that time."""
        if atomic and connections[self.alias].vendor == "sqlite":
            return min(seconds, SQLITE_BATCH_SECONDS)
        return seconds

    # Receipts

    def claim_receipt(self, start_id: str, using: str) -> bool:
        """Note that a task ran."""
        return insert_or_ignore(ReceiptRow(start_id=start_id, created=datetime.now(UTC)), using)

    # Dead letters

    def add_dead_letter(self, letter: DeadLetter, *, holder_died: bool = False) -> None:
        """Keep a dead letter, and fail the shard of a slice with it."""
        meta = read_meta(letter.task)
        message = meta.slice if meta is not None else None
        row = DeadLetterRow(
            attempts=letter.attempts,
            error_type=letter.error_type[:255],
            error=spell_out(letter.error),
            traceback=spell_out(letter.traceback),
            iteration=message.iteration if message is not None else "",
        )
        write_task(letter.task, row)
        row.created = datetime.now(UTC)
        with self.atomic():
            if message is not None:
                if not holder_died:
                    with self.locked_shard(message.iteration, message.shard, wait=True) as shard:
                        self.check_unheld(shard, message)
                shards = ShardRow.objects.using(self.alias).filter(
                    iteration_id=message.iteration,
                    index=message.shard,
                    step=message.step,
                    epoch=message.epoch,
                    status="running",
                )
                error = f"{row.error_type}: {row.error}"
                if shards.update(status="failed", owner="", until=None, error=error):
                    IterationRow.objects.using(self.alias).filter(
                        pk=message.iteration, status__in=("running", "paused")
                    ).update(status="failed", error=error, finished=datetime.now(UTC))
            row.save(using=self.alias, force_insert=True)

    # Payloads

    def keep_payload(self, start_id: str, data: bytes, until: datetime) -> None:
        """Keep what a task carries."""
        PayloadRow(start_id=start_id, data=data, until=until).save(using=self.alias, force_insert=True)

    def get_payload(self, start_id: str) -> bytes | None:
        """Return what was kept for a task."""
        rows = PayloadRow.objects.using(self.alias).filter(pk=start_id).values_list("data", flat=True)
        return next((bytes(data) for data in rows), None)

    def clear_payloads(self, start_ids: Sequence[str]) -> None:
        """Drop what was kept for tasks."""
        PayloadRow.objects.using(self.alias).filter(pk__in=start_ids).update(data=b"")

    # Iterations

    def create_iteration(self, iteration: IterationRecord, shards: Sequence[ShardRecord]) -> bool:
        """Keep a new iteration with its shards."""
        row = IterationRow(
            id=iteration.id,
            name=iteration.name[:255],
            status=iteration.status,
            unfinished=iteration.unfinished,
            total=iteration.total,
            parked=iteration.parked,
            concurrency=iteration.concurrency,
            wanted=iteration.wanted,
            options=simplejson.dumps(iteration.options),
            created=datetime.now(UTC),
        )
        with self.atomic():
            if not insert_or_ignore(row, self.alias):
                return False
            ShardRow.objects.using(self.alias).bulk_create(_make_row(shard) for shard in shards)
        return True

    def add_shard(self, shard: ShardRecord) -> None:
        """Keep one more shard."""
        _make_row(shard).save(using=self.alias, force_insert=True)

    def drop_shards(self, iteration_id: str) -> None:
        """Delete all shards of an iteration."""
        ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id).delete()

    def get_iteration(self, iteration_id: str, *, lock: bool = False) -> IterationRecord | None:
        """Return one iteration."""
        values = self._iterations.find(iteration_id, lock=lock)
        return None if values is None else make_iteration(values)

    def list_iterations(self, *, limit: int = 100, before: IterationRecord | None = None) -> list[IterationRecord]:
        """Return the newest iterations, or those before one of them."""
        rows = IterationRow.objects.using(self.alias).order_by("-created", "-id")
        if before is not None:
            # Those of the same microsecond stand apart: an index is entered at the time alone.
            same = Q(created=before.created, id__lt=before.id)
            rows = rows.filter(created__lte=before.created).filter(same | Q(created__lt=before.created))
        return [read_iteration(row) for row in rows[:limit]]

    def save_iteration(self, iteration: IterationRecord) -> None:
        """Write status, finished and error."""
        IterationRow.objects.using(self.alias).filter(pk=iteration.id).update(
            status=iteration.status, finished=iteration.finished, error=spell_out(iteration.error)
        )

    def save_options(self, iteration: IterationRecord) -> None:
        """Write the options."""
        rows = IterationRow.objects.using(self.alias).filter(pk=iteration.id)
        rows.update(options=simplejson.dumps(iteration.options))

    def save_concurrency(self, iteration: IterationRecord) -> None:
        """Write concurrency and parked."""
        rows = IterationRow.objects.using(self.alias).filter(pk=iteration.id)
        rows.update(concurrency=iteration.concurrency, parked=iteration.parked)

    def set_wanted(self, iteration_id: str, wanted: bool) -> None:
        """Write the hint."""
        IterationRow.objects.using(self.alias).filter(pk=iteration_id).update(wanted=wanted)

    def list_shards(self, *iteration_ids: str) -> list[ShardRecord]:
        """Return the shards of iterations by index."""
        rows = ShardRow.objects.using(self.alias).filter(iteration_id__in=iteration_ids).order_by("iteration", "index")
        return [_read_shard(row) for row in rows]

    def list_done_shards(self, iteration_id: str) -> list[ShardRecord]:
        """Return the shards as they ended, where the open transaction may have begun before they did."""
        connection = connections[self.alias]
        if connection.vendor != "mysql" or not connection.in_atomic_block:
            # On PostgreSQL the count of unfinished ones would not have changed in such a transaction.
            return self.list_shards(iteration_id)
        if getattr(connection, "isolation_level", None) == "read committed":
            return self.list_shards(iteration_id)
        # REPEATABLE READ of MySQL and MariaDB shows rows as they were, unless they are locked.
        rows = ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id).order_by("index")
        return [_read_shard(row) for row in rows.select_for_update()]

    def read_progress(self, iteration_id: str) -> tuple[IterationRecord, list[ShardRecord]] | None:
        """Return what tells of progress, by two or three queries."""
        rows = IterationRow.objects.using(self.alias).filter(pk=iteration_id)
        if (row := rows.defer("options").first()) is None:
            return None
        found = ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id).order_by("index")
        shards = [ShardRecord(**values) for values in found.values(*PROGRESS_FIELDS)]
        needs_options = not shards or (len(shards) > 1 and all(shard.status == "done" for shard in shards[:-1]))
        row.options = (rows.values_list("options", flat=True).first() if needs_options else None) or "{}"
        return read_iteration(row), shards

    def lock_shards(self, iteration_id: str) -> None:
        """Hold all shards of an iteration."""
        rows = ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id)
        if connections[self.alias].features.has_select_for_update:
            list(rows.select_for_update().order_by("index").values_list("pk"))
        else:
            rows.update(owner=F("owner"))

    @contextmanager
    def locked_shard(
        self, iteration_id: str, index: int, *, wait: bool = False, for_view: bool = False
    ) -> Iterator[ShardRecord | None]:
        """Open a transaction that holds the shard's row."""
        with ExitStack() as stack:
            try:
                stack.enter_context(super().atomic() if for_view else self.atomic())
                values = self._shards.lock(iteration_id, index, wait=wait)
            except OperationalError as error:
                if not is_lock_error(error):
                    raise
                raise ShardBusyError(str(error)) from error
            yield None if values is None else ShardRecord(iteration=iteration_id, index=index, **values)

    def lock_free_shard(self, iteration_id: str, index: int) -> ShardRecord | None:
        """Hold one more shard, by its key: a search would hold, for a moment, rows that it does not return."""
        values = self._shards.lock_free(iteration_id, index)
        return None if values is None else ShardRecord(iteration=iteration_id, index=index, **values)

    def save_shard(self, shard: ShardRecord) -> None:
        """Write a shard."""
        shard.error = spell_out(shard.error)
        self._shards.save(shard.iteration, shard.index, shard)

    def resume_shards(self, iteration_id: str) -> list[ShardRecord]:
        """Set the shards that are not done running again."""
        rows = ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id).exclude(status="done")
        rows.update(
            status="running",
            epoch=F("epoch") + 1,
            attempts=0,
            error="",
            task="",
            advanced=False,
            progressed_at=self.now(),
        )
        return [_read_shard(row) for row in rows.order_by("index")]

    def touch_stuck_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        """Return running shards without progress."""
        with self.atomic():
            return self._touch_stuck_shards(before, limit)

    def _touch_stuck_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        now = self.now()
        stuck = list(find_stalled(self.alias, before, now)[:limit])
        ShardRow.objects.using(self.alias).filter(pk__in=[row.pk for row in stuck]).update(progressed_at=now)
        return [_read_shard(row) for row in stuck]

    def renew_lease(self, iteration_id: str, index: int, owner: str, until: datetime) -> bool:
        """Extend a lease."""
        rows = ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id, index=index, owner=owner)
        return bool(rows.update(until=until))

    def finish_shard(self, iteration_id: str) -> int:
        """Count one shard less: an UPDATE that is read back, never a count over the shards."""
        rows = IterationRow.objects.using(self.alias).filter(pk=iteration_id)
        rows.update(unfinished=F("unfinished") - 1)
        return int(rows.values_list("unfinished", flat=True).get())

    # Retention

    def sweep(self) -> int:
        """Delete receipts, dead letters, payloads and ended iterations past their time, some at a time."""
        before = datetime.now(UTC) - timedelta(days=get_settings().retention_days)
        old: list[Any] = [
            DeadLetterRow.objects.using(self.alias).filter(created__lt=before),
            IterationRow.objects.using(self.alias).filter(finished__lt=before),
            PayloadRow.objects.using(self.alias).filter(
                # A deferred iteration may be paused for long.
                ~Exists(IterationRow.objects.filter(pk=OuterRef("pk"))),
                until__lt=datetime.now(UTC),
            ),
        ]
        old += [ReceiptRow.objects.using(alias).filter(created__lt=before) for alias in self.outbox_aliases()]
        gone = 0
        for rows in old:
            keys = list(rows.values_list("pk", flat=True)[:SWEEP_ROWS])
            if keys:
                gone += rows.model.objects.using(rows.db).filter(pk__in=keys).delete()[0]
        return gone
