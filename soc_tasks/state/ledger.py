"""The contract of the ledger: the entities that iterations gave up, with their errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from soc_tasks.values import FailedItem


class BaseLedger(ABC):
    """Keeps failed items for as long as their iteration is kept."""

    @abstractmethod
    def add_failed_item(self, item: FailedItem) -> None:
        """Keep a failed item, in the open transaction."""

    @abstractmethod
    def list_failed_items(
        self, iteration_id: str, *, since: int = 0, ids: Sequence[int] | None = None, limit: int = 100
    ) -> list[FailedItem]:
        """Return the failed items of an iteration in the order in which they came.

        Args:
            iteration_id: which iteration.
            since: from this id on.
            ids: only these.
            limit: how many at most.
        """

    @abstractmethod
    def count_failed_items(self, iteration_id: str, *, ids: Sequence[int] | None = None) -> tuple[int, int]:
        """Return how many failed items of an iteration there are, and the highest id of them, or 0."""

    @abstractmethod
    def save_failed_item(self, item: FailedItem) -> None:
        """Write error and attempts of an item that failed again."""

    @abstractmethod
    def drop_failed_items(self, ids: Sequence[int]) -> int:
        """Forget items that were done after all, or are gone, in the open transaction; return how many there were."""

    @abstractmethod
    def sum_shards(self, iteration_id: str) -> tuple[int, int]:
        """Return how many entities the shards of an iteration have done, and how many they gave up."""
