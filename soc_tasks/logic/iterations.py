"""Iterations as people see and steer them; how they run is in slices.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from soc_tasks.errors import SocTasksError
from soc_tasks.logic.runs import enqueue_slice, is_last
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardView:
    """One shard of an iteration, as it was when it was read."""

    index: int
    status: str
    done: int
    step: int
    cursor: str | None
    attempts: int
    error: str
    hold: str
    progressed_at: datetime | None


class Iteration:
    """A run over a set of entities.

    Attributes:
        id: the `iteration` of the handle that started it.
        name: the view that runs.
        status: "running", "paused", "cancelled", "succeeded" or "failed".
        done: entities done.
        failed: entities given up.
        total: entities at the start, or None where nobody counted.
        shards: a list of `ShardView`.
        created, finished: when it began and ended.
        error: what ended it, or "".
        hold: why a throttle holds it back, or "".
    """

    class DoesNotExist(SocTasksError, LookupError):  # noqa: N818 - as Django's models name it
        """There is no such iteration: its start has not run yet, or it has passed the retention time."""

    def __init__(self, record: IterationRecord, shards: list[ShardRecord]) -> None:
        self._take(record, shards)

    def _take(self, record: IterationRecord, shards: list[ShardRecord]) -> None:
        self._options: dict[str, Any] = record.options
        self.id = record.id
        self.name = record.name
        self.status = record.status
        self.total = record.total
        self.created = record.created
        self.finished = record.finished
        self.error = record.error
        self.failed = 0
        # The shards may be gone, all but a summary.
        self.done: int = record.options.get("done", sum(shard.done for shard in shards))
        self.shards = [
            ShardView(**{name: getattr(shard, name) for name in ShardView.__dataclass_fields__})
            for shard in shards
            if not is_last(record, shard)
        ]
        self.hold = next((shard.hold for shard in self.shards if shard.status == "running" and shard.hold), "")

    def __repr__(self) -> str:
        """Return name, status and progress."""
        return f"<Iteration {self.id} {self.name}: {self.status}, {self.done} of {self.total}>"

    @classmethod
    def get(cls, id: str) -> Iteration:
        """Return an iteration.

        Args:
            id: the `iteration` of the handle that started it.

        Raises:
            Iteration.DoesNotExist: its start has not run yet, or it is past the retention time.
        """
        record = get_state().get_iteration(id)
        if record is None:
            raise cls.DoesNotExist(
                f"There is no iteration {id!r}: its start has not run yet, or it has passed the retention time."
            )
        return cls(record, get_state().list_shards(id))

    @classmethod
    def all(cls, limit: int = 100) -> list[Iteration]:
        """Return the newest iterations.

        Args:
            limit: how many at most.
        """
        state = get_state()
        records = state.list_iterations(limit=limit)
        shards: dict[str, list[ShardRecord]] = {record.id: [] for record in records}
        for shard in state.list_shards(*shards):
            shards[shard.iteration].append(shard)
        return [cls(record, shards[record.id]) for record in records]

    def refresh(self) -> Iteration:
        """Read everything again, and return self."""
        fresh = type(self).get(self.id)
        self.__dict__.update(fresh.__dict__)
        return self

    @property
    def rate(self) -> float:
        """Entities a second, from the beginning to the last progress."""
        moments = [shard.progressed_at for shard in self.shards if shard.progressed_at is not None]
        if not self.shards and self.finished is not None:
            moments = [self.finished]
        if not moments or self.created is None:
            return 0.0
        return self.done / max((max(moments) - self.created).total_seconds(), 1e-3)

    @property
    def time_left(self) -> timedelta | None:
        """The time it takes at this rate, or None where that cannot be told."""
        if self.status in ("succeeded", "cancelled", "failed"):
            return timedelta(0) if self.status == "succeeded" else None
        if self.total is None or not self.rate:
            return None
        return timedelta(seconds=max(0, self.total - self.done) / self.rate)

    def pause(self) -> Iteration:
        """Stop after the batch that is running; `resume` goes on. Without effect unless it runs."""
        return self._change("paused", ("running",))

    def cancel(self) -> Iteration:
        """Stop after the batch that is running, for good. Without effect on one that has ended."""
        return self._change("cancelled", ("running", "paused", "failed"))

    def resume(self) -> Iteration:
        """Go on from the stored cursors, after a pause or a failure. Without effect on any other."""
        state = get_state()
        with state.atomic():
            # Shards before the iteration, as slices lock them: two orders would deadlock.
            state.lock_shards(self.id)
            record = state.get_iteration(self.id, lock=True)
            if record is not None and record.status in ("paused", "failed"):
                record.status, record.finished, record.error = "running", None, ""
                state.save_iteration(record)
                state.delete_letters_of(self.id)
                for shard in state.resume_shards(self.id):
                    enqueue_slice(record, shard)
        return self.refresh()

    def _change(self, status: str, before: tuple[str, ...]) -> Iteration:
        state = get_state()
        with state.atomic():
            record = state.get_iteration(self.id, lock=True)
            if record is not None and record.status in before:
                record.status = status
                record.finished = datetime.now(UTC) if status == "cancelled" else None
                state.save_iteration(record)
                if status == "cancelled":
                    # What a deferred iteration needs is needed no more.
                    state.clear_payloads([self.id])
        return self.refresh()
