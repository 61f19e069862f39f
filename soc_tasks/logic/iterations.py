"""Iterations as people see and steer them; how they run is in slices.py."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from soc_tasks.errors import SocTasksError
from soc_tasks.logic import parking
from soc_tasks.logic.failed_items import start_retry
from soc_tasks.logic.progress import Progress, judge_progress
from soc_tasks.logic.runs import enqueue_slice, forget_plan
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.values import FailedItem

#: Characters of an id.
ID_LENGTH: Final = 32


class Iteration:
    """A run over a set of entities.

    Attributes:
        id: the `iteration` of the handle that started it.
        name: the view that runs.
        status: "running", "paused", "cancelled", "succeeded" or "failed".
        done: entities done.
        failed: entities given up; it stays when a retry is successful, and `failed_items` has what is left.
        total: entities at the start, or None where nobody counted.
        rate: entities a second: of late while it runs, on average when it has ended.
        time_left: a timedelta: the time it takes at this rate, or None where that cannot be told.
        shards: a list of `ShardView` (soc_tasks.logic.progress).
        concurrency: how many shards may work at a time, or None for all.
        created, finished: when it began and ended.
        error: what ended it, or "".
        hold: why a throttle holds it back, or "".
        retries: id of the iteration whose failed items this one tries again, or None.
    """

    class DoesNotExist(SocTasksError, LookupError):  # noqa: N818 - as Django's models name it
        """There is no such iteration: its start has not run yet, or it has passed the retention time."""

    def __init__(self, record: IterationRecord, shards: list[ShardRecord]) -> None:
        self._take(record, shards)

    def _take(self, record: IterationRecord, shards: list[ShardRecord]) -> None:
        self._progress = judge_progress(record, shards)
        self.id = record.id
        self.name = record.name
        self.status = record.status
        self.total = record.total
        self.concurrency = record.concurrency
        self.created = record.created
        self.finished = record.finished
        self.error = record.error
        self.retries: str | None = record.options.get("retries")
        # The shards may be gone, all but a summary.
        self.done = self._progress.done
        self.failed = self._progress.failed
        self.rate = self._progress.rate
        self.time_left = self._progress.time_left
        self.shards = list(self._progress.shards)
        self.hold = self._progress.hold

    def __repr__(self) -> str:
        """Return name, status and progress."""
        return f"<Iteration {self.id} {self.name}: {self.status}, {self.done} of {self.total}>"

    @property
    def progress(self) -> Progress:
        """Return its progress, as it was when it was read."""
        return self._progress

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
            raise cls.DoesNotExist(_explain_missing(id))
        return cls(record, get_state().list_shards(id))

    @classmethod
    def all(cls, limit: int = 100, *, before: str | None = None) -> list[Iteration]:
        """Return the newest iterations.

        Args:
            limit: how many at most.
            before: only those before the one that has this id; empty where that is gone.
        """
        state = get_state()
        last = None if before is None else state.get_iteration(before)
        if before is not None and last is None:
            return []
        records = state.list_iterations(limit=limit, before=last)
        shards: dict[str, list[ShardRecord]] = {record.id: [] for record in records}
        for shard in state.list_shards(*shards):
            shards[shard.iteration].append(shard)
        return [cls(record, shards[record.id]) for record in records]

    def refresh(self) -> Iteration:
        """Read everything again, and return self."""
        fresh = type(self).get(self.id)
        self.__dict__.update(fresh.__dict__)
        return self

    def as_dict(self) -> dict[str, Any]:
        """Return the progress ready for JSON, that of each shard included; times are seconds."""
        return self._progress.as_dict(shards=True)

    def pause(self) -> Iteration:
        """Stop after the batch that is running; `resume` goes on. Without effect unless it runs."""
        return self._change("paused", ("running",))

    def cancel(self) -> Iteration:
        """Stop after the batch that is running, for good. Without effect on one that has ended."""
        return self._change("cancelled", ("running", "paused", "failed"))

    def resume(self) -> Iteration:
        """Go on from the stored cursors, after a pause or a failure. Without effect on any other."""
        get_state().run(self._resume)
        return self.refresh()

    def _resume(self) -> None:
        state = get_state()
        # Shards before the iteration, as slices lock them: two orders would deadlock.
        state.lock_shards(self.id)
        record = state.get_iteration(self.id, lock=True)
        if record is not None and record.status in ("paused", "failed"):
            if record.status == "failed":
                # The error budget counts anew.
                done, failed = state.sum_shards(self.id)
                record.options["forgiven"] = {"done": done, "failed": failed}
                state.save_options(record)
            record.status, record.finished, record.error = "running", None, ""
            state.save_iteration(record)
            state.delete_letters_of(self.id)
            # Those too many park again, before their first batch.
            record.parked = 0
            state.save_concurrency(record)
            for shard in state.resume_shards(self.id):
                enqueue_slice(record, shard)

    def set_concurrency(self, limit: int | None) -> Iteration:
        """Let no more than so many shards work at a time, from their next batch on. Without effect on what has ended.

        The others park: they have no task until one that works is done, or the limit is raised.

        Args:
            limit: how many, at least 1; None: all of them.

        Raises:
            ValueError: it is no such number.
        """
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(
                f"The concurrency must be a whole number from 1, or None for all shards, not {limit!r}; "
                "to stop all of them, pause() the iteration."
            )
        state = get_state()

        def change() -> None:
            record = state.get_iteration(self.id, lock=True)
            if record is not None and record.status in ("running", "paused", "failed"):
                record.concurrency = limit
                state.save_concurrency(record)
                parking.wake(self.id)

        state.run(change)
        return self.refresh()

    def failed_items(self, limit: int = 100) -> list[FailedItem]:
        """Return the entities that were given up and are not done yet, in the order in which they failed.

        Args:
            limit: how many at most.
        """
        return get_state().list_failed_items(self.retries or self.id, limit=limit)

    def count_failed_items(self) -> int:
        """Return how many entities were given up and are not done yet."""
        return get_state().count_failed_items(self.retries or self.id)[0]

    def retry_failed(self, items: Iterable[FailedItem | int] | None = None) -> Iteration | None:
        """Start a run over failed items: by the same view or callback, in batches, without `finalize`.

        What succeeds leaves the ledger, what fails again stays, with its new error. Of a run that is a retry itself,
        the items of the first run are tried again.

        Args:
            items: those that are meant, or their ids; None: all.

        Returns:
            The run; the one that is under way, if all are meant; None where there are no failed items.

        Raises:
            Iteration.DoesNotExist: this iteration has passed the retention time.
            LookupError: it has no such item.
            RetryRunningError: some are meant, and a retry is under way.
            NotRetriableError: what it needs is gone: it was cancelled before it had failed items.
        """
        ids = None if items is None else [item if isinstance(item, int) else item.id for item in items]
        if get_state().get_iteration(self.retries or self.id) is None:
            raise self.DoesNotExist(f"Iteration {self.retries or self.id} has passed the retention time.")
        started = start_retry(self.retries or self.id, ids)
        return None if started is None else type(self).get(started)

    def _change(self, status: str, before: tuple[str, ...]) -> Iteration:
        state = get_state()

        def change() -> None:
            record = state.get_iteration(self.id, lock=True)
            if record is not None and record.status in before:
                record.status = status
                record.finished = datetime.now(UTC) if status == "cancelled" else None
                state.save_iteration(record)
                if status == "cancelled":
                    # What a deferred iteration needs is needed no more, unless for its failed items.
                    forget_plan(record)

        state.run(change)
        return self.refresh()


def _explain_missing(id: str) -> str:
    if len(id) < ID_LENGTH:
        return (
            f"There is no iteration {id!r}: ids have {ID_LENGTH} digits, and are given whole; "
            "`manage.py tasks iterations` lists them, and takes their first or last characters itself."
        )
    return f"There is no iteration {id!r}: its start has not run yet, or it has passed the retention time."
