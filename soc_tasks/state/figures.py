"""The contract of figures: what an overview asks the state, in a few bounded queries that are answered by indexes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from soc_tasks.state.records import IterationRecord, ShardRecord


class BaseFigures(ABC):
    """Counts, and finds what stands still; all of it only looks."""

    @abstractmethod
    def count_dead_letters(
        self,
        most: int,
        *,
        since: datetime | None = None,
        queue: str | None = None,
        error_type: str | None = None,
        up_to: int | None = None,
    ) -> int:
        """Return how many dead letters are kept.

        Args:
            most: up to where they are counted.
            since: only those that were kept at this moment or later.
            queue, error_type: only those of a queue, or of a class of error.
            up_to: only those up to this id.
        """

    @abstractmethod
    def count_held(self, most: int) -> tuple[int, datetime | None]:
        """Return how many tasks wait in the outboxes, and when the oldest of them was made.

        Args:
            most: up to where they are counted, in each outbox.
        """

    @abstractmethod
    def list_open_iterations(self, limit: int) -> list[tuple[IterationRecord, list[ShardRecord]]]:
        """Return the newest iterations that run or are paused, with their shards as far as they tell of progress."""

    @abstractmethod
    def list_stalled_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        """Return running shards without a live lease that had no progress since `before`, longest first."""
