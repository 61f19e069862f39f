"""Figures from the tables in Django's databases."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import simplejson
from django.db.models import Q, QuerySet

from soc_tasks.models import IterationRow, OutboxRow, ShardRow
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.state.django_letters import select_letters

#: What tells of progress; contexts and keys may be large.
PROGRESS_FIELDS: Final = tuple(
    field.name for field in dataclasses.fields(ShardRecord) if field.name not in ("context", "start", "end")
)
#: All of an iteration.
ITERATION_FIELDS: Final = tuple(field.name for field in dataclasses.fields(IterationRecord))


def make_iteration(values: Mapping[str, Any]) -> IterationRecord:
    """Return the values of an iteration's columns, by names, as a record."""
    return IterationRecord(**{**values, "options": simplejson.loads(values["options"])})


def read_iteration(row: IterationRow) -> IterationRecord:
    """Return an iteration's row as a record."""
    return make_iteration({name: getattr(row, name) for name in ITERATION_FIELDS})


def find_stalled(alias: str, before: datetime, now: datetime) -> QuerySet[ShardRow]:
    """Return the running shards without a live lease that had no progress since `before`."""
    return ShardRow.objects.using(alias).filter(
        Q(until=None) | Q(until__lt=now),
        Q(progressed_at__lt=before) | Q(progressed_at=None, iteration__created__lt=before),
        status="running",
        iteration__status="running",
    )


class DjangoFigures:
    """Counts rows, by index and up to a limit."""

    @property
    @abstractmethod
    def alias(self) -> str:
        """Return the alias of the tables."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the time by the database's clock."""

    @abstractmethod
    def outbox_aliases(self) -> list[str]:
        """Return the aliases that can hold an outbox."""

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
        rows = select_letters(self.alias, queue, error_type).order_by()
        if since is not None:
            rows = rows.filter(created__gte=since)
        if up_to is not None:
            rows = rows.filter(pk__lte=up_to)
        return rows.values("pk")[:most].count()

    def count_held(self, most: int) -> tuple[int, datetime | None]:
        """Return how many tasks wait in the outboxes, and when the oldest of them was made."""
        count, oldest = 0, None
        for alias in self.outbox_aliases():
            rows = OutboxRow.objects.using(alias)
            if (first := rows.order_by("pk").values_list("created", flat=True).first()) is not None:
                count += rows.order_by().values("pk")[:most].count()
                oldest = first if oldest is None else min(oldest, first)
        return count, oldest

    def list_open_iterations(self, limit: int) -> list[tuple[IterationRecord, list[ShardRecord]]]:
        """Return the newest iterations that run or are paused."""
        rows = IterationRow.objects.using(self.alias).filter(finished=None, status__in=("running", "paused"))
        records = [read_iteration(row) for row in rows.order_by("-created", "-id")[:limit]]
        shards: dict[str, list[ShardRecord]] = {record.id: [] for record in records}
        found = ShardRow.objects.using(self.alias).filter(iteration_id__in=shards).order_by("iteration", "index")
        for values in found.values(*PROGRESS_FIELDS) if shards else ():
            shards[values["iteration"]].append(ShardRecord(**values))
        return [(record, shards[record.id]) for record in records]

    def list_stalled_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        """Return running shards without progress, longest first."""
        rows = find_stalled(self.alias, before, self.now()).order_by("progressed_at", "pk")
        return [ShardRecord(**values) for values in rows.values(*PROGRESS_FIELDS)[:limit]]
