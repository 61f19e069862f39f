"""The ledger of failed items in Django's databases."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Count, Max, QuerySet, Sum

from soc_tasks.models import FailedItemRow, ShardRow
from soc_tasks.state.kept_tasks import spell_out
from soc_tasks.values import FailedItem

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(FailedItem) if field.name != "iteration")


class DjangoLedger:
    """Keeps failed items in their table."""

    @property
    @abstractmethod
    def alias(self) -> str:
        """Return the alias of the tables."""

    def _failed_items(self, iteration_id: str, ids: Sequence[int] | None) -> QuerySet[FailedItemRow]:
        rows = FailedItemRow.objects.using(self.alias).filter(iteration_id=iteration_id)
        return rows if ids is None else rows.filter(pk__in=ids)

    def add_failed_item(self, item: FailedItem) -> None:
        """Keep a failed item."""
        FailedItemRow(
            iteration_id=item.iteration,
            shard=item.shard,
            key=item.key,
            entity=spell_out(item.entity)[:255],
            attempts=item.attempts,
            created=datetime.now(UTC),
            **_write_error(item),
        ).save(using=self.alias, force_insert=True)

    def list_failed_items(
        self, iteration_id: str, *, since: int = 0, ids: Sequence[int] | None = None, limit: int = 100
    ) -> list[FailedItem]:
        """Return failed items by their ids."""
        rows = self._failed_items(iteration_id, ids).filter(pk__gte=since).order_by("pk")
        return [
            FailedItem(iteration=iteration_id, **{name: getattr(row, name) for name in _FIELDS}) for row in rows[:limit]
        ]

    def count_failed_items(self, iteration_id: str, *, ids: Sequence[int] | None = None) -> tuple[int, int]:
        """Return how many failed items there are, and the highest id."""
        found = self._failed_items(iteration_id, ids).aggregate(number=Count("pk"), last=Max("pk"))
        return found["number"], found["last"] or 0

    def save_failed_item(self, item: FailedItem) -> None:
        """Write error and attempts."""
        FailedItemRow.objects.using(self.alias).filter(pk=item.id).update(attempts=item.attempts, **_write_error(item))

    def drop_failed_items(self, ids: Sequence[int]) -> int:
        """Forget items."""
        return FailedItemRow.objects.using(self.alias).filter(pk__in=ids).delete()[0]

    def sum_shards(self, iteration_id: str) -> tuple[int, int]:
        """Return how many entities are done, and given up."""
        rows = ShardRow.objects.using(self.alias).filter(iteration_id=iteration_id)
        found = rows.aggregate(all_done=Sum("done"), all_failed=Sum("failed"))
        return int(found["all_done"] or 0), int(found["all_failed"] or 0)


def _write_error(item: FailedItem) -> dict[str, Any]:
    return {
        "error_type": spell_out(item.error_type)[:255],
        "error": spell_out(item.error),
        "traceback": spell_out(item.traceback),
    }
