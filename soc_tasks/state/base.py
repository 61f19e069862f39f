"""The contract of the state: what must survive, wherever it is kept.

Iterations and their shards, dead letters, receipts, and (where the backend cannot share a transaction) the outbox.
Records are plain values; who changes one does so inside `locked_shard` or `atomic` and saves it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, TypeVar

from soc_tasks.conf import get_settings
from soc_tasks.meta import SliceMessage, read_meta
from soc_tasks.state.busy import BusyError, ShardBusyError
from soc_tasks.state.figures import BaseFigures
from soc_tasks.state.ledger import BaseLedger
from soc_tasks.state.records import DeadLetter, IterationRecord, LetterGroup, ShardRecord
from soc_tasks.values import Task

__all__ = ["BaseState", "BusyError", "DeadLetter", "HeldId", "IterationRecord", "ShardBusyError", "ShardRecord"]

logger = logging.getLogger("soc_tasks")

T = TypeVar("T")
#: By what a task of the outbox is known there.
HeldId = int | str


def is_at(shard: ShardRecord, message: SliceMessage) -> bool:
    """Tell whether a slice is the one that a running shard stands at."""
    return (shard.step, shard.epoch, shard.status) == (message.step, message.epoch, "running")


def _breathe_never() -> None:
    """Do nothing: writers of this state do not keep each other out."""


class BaseState(BaseLedger, BaseFigures, ABC):
    """Keeps what must survive."""

    @property
    @abstractmethod
    def alias(self) -> str:
        """Return where it lives: an alias of DATABASES, or the name of another place (transactions.py)."""

    def atomic(self) -> AbstractContextManager[Any]:
        """Open a transaction on the state, or a part of the one that is open."""
        from soc_tasks.state import transactions  # which asks for the state

        return transactions.atomic(self.alias)

    def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a transaction, and again where the store undoes it; all that it does must be undone with it."""
        with self.atomic():
            return work()

    def read_batch(self, fetch: Callable[[], tuple[Any, Any]]) -> tuple[Any, Any]:
        """Fetch entities and the key that follows, for a batch that may be part of the open transaction."""
        return fetch()

    def now(self) -> datetime:
        """Return the time by which leases and progress are judged: the same for all who share this state."""
        return datetime.now(UTC)

    def make_breather(self) -> Callable[[], None]:
        """Return what a run of long transactions calls between two of them, so that others come to write."""
        return _breathe_never

    def bound_batch(self, seconds: float, atomic: bool) -> float:
        """Return how long a batch should take: as wished, or shorter where it keeps all other writers waiting.

        Args:
            seconds: as wished.
            atomic: whether the whole batch is one transaction.
        """
        return seconds

    def bound_size(self, most: int, atomic: bool) -> int:
        """Return how many entities a batch that steers itself may have, where its transaction has no room for more."""
        return most

    @abstractmethod
    def claim_receipt(self, start_id: str, using: str) -> bool:
        """Note, in the open transaction of `using`, that a task ran; False where it had run before."""

    @abstractmethod
    def add_dead_letter(self, letter: DeadLetter, *, holder_died: bool = False) -> None:
        """Keep a dead letter; one of a slice fails its shard and iteration in the same transaction.

        Args:
            letter: what is kept.
            holder_died: whether a lease that lives is that of the attempt, which is known to be over.

        Raises:
            ShardBusyError: another delivery holds the shard; nothing is kept.
        """

    @abstractmethod
    def list_dead_letters(
        self,
        *,
        queue: str | None = None,
        error_type: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[DeadLetter]:
        """Return the newest dead letters, or those before one of them.

        Args:
            queue, error_type: only those of a queue, or of a class of error; an index serves one of both.
            limit: how many at most.
            before: id of a letter.
        """

    @abstractmethod
    def group_dead_letters(self, *, most: int, cap: int) -> tuple[list[LetterGroup], bool]:
        """Return dead letters by their class of error, and whether those are all classes.

        Args:
            most: how many classes at most.
            cap: where counting stops: a number above it means "or more".
        """

    @abstractmethod
    def get_dead_letter(self, letter_id: int) -> DeadLetter | None:
        """Return one dead letter."""

    @abstractmethod
    def delete_dead_letters(self, ids: Sequence[int]) -> int:
        """Drop dead letters; return how many there were."""

    @abstractmethod
    def delete_letters_of(self, iteration_id: str) -> None:
        """Drop the dead letters of an iteration that goes on."""

    @abstractmethod
    def keep_payload(self, start_id: str, data: bytes, until: datetime) -> None:
        """Keep what a task carries that is too large for it, at least until then, and as long as its iteration."""

    @abstractmethod
    def get_payload(self, start_id: str) -> bytes | None:
        """Return what was kept for a task; empty where that is cleared, None where there is nothing."""

    @abstractmethod
    def clear_payloads(self, start_ids: Sequence[str]) -> None:
        """Drop what was kept for tasks that have ended, but not that it was."""

    @abstractmethod
    def create_iteration(self, iteration: IterationRecord, shards: Sequence[ShardRecord]) -> bool:
        """Keep a new iteration; False where one of this id exists."""

    @abstractmethod
    def add_shard(self, shard: ShardRecord) -> None:
        """Keep one more shard of an iteration, in the open transaction; it does not count as unfinished."""

    @abstractmethod
    def drop_shards(self, iteration_id: str) -> None:
        """Delete all shards of an iteration that has ended, in the open transaction."""

    @abstractmethod
    def get_iteration(self, iteration_id: str, *, lock: bool = False) -> IterationRecord | None:
        """Return one iteration; `lock` holds it until the transaction ends."""

    @abstractmethod
    def list_iterations(self, *, limit: int = 100, before: IterationRecord | None = None) -> list[IterationRecord]:
        """Return the newest iterations, or those before one of them."""

    @abstractmethod
    def save_iteration(self, iteration: IterationRecord) -> None:
        """Write status, finished and error of an iteration that was read under lock."""

    @abstractmethod
    def save_options(self, iteration: IterationRecord) -> None:
        """Write the options of an iteration."""

    @abstractmethod
    def save_concurrency(self, iteration: IterationRecord) -> None:
        """Write concurrency and parked of an iteration that was read under lock."""

    @abstractmethod
    def set_wanted(self, iteration_id: str, wanted: bool) -> None:
        """Write whether a shard may have asked for a part of another's rest, in the open transaction."""

    @abstractmethod
    def list_shards(self, *iteration_ids: str) -> list[ShardRecord]:
        """Return the shards of iterations by index."""

    def list_done_shards(self, iteration_id: str) -> list[ShardRecord]:
        """Return the shards of an iteration of which the open transaction has seen the last one end, by index."""
        return self.list_shards(iteration_id)

    @abstractmethod
    def read_progress(self, iteration_id: str) -> tuple[IterationRecord, list[ShardRecord]] | None:
        """Return an iteration and its shards by index, as far as they tell of progress: contexts may be large.

        Its options are read where the shards are gone, or the last one may be that of `finalize`.
        """

    @abstractmethod
    def lock_shards(self, iteration_id: str) -> None:
        """Hold all shards of an iteration until the transaction ends."""

    @abstractmethod
    def locked_shard(
        self, iteration_id: str, index: int, *, wait: bool = False, for_view: bool = False
    ) -> AbstractContextManager[ShardRecord | None]:
        """Open a transaction that holds the shard; None where there is no such shard.

        Args:
            iteration_id, index: which shard.
            wait: whether to wait for whoever holds it: for deliveries that have leased it, which others hold but for a
                moment.
            for_view: whether the site's own code runs in it: then it is of the level that the site has chosen.

        Raises:
            ShardBusyError: another delivery holds it.
        """

    @abstractmethod
    def lock_free_shard(self, iteration_id: str, index: int) -> ShardRecord | None:
        """Hold one more shard in the open transaction; None where another holds it, or there is none."""

    @abstractmethod
    def save_shard(self, shard: ShardRecord) -> None:
        """Write a shard that was read under lock."""

    @abstractmethod
    def resume_shards(self, iteration_id: str) -> list[ShardRecord]:
        """Set the shards that are not done running again, in a new epoch, and return them."""

    @abstractmethod
    def touch_stuck_shards(self, before: datetime, limit: int) -> list[ShardRecord]:
        """Return running shards without a live lease that had no progress since `before`, and count them as touched.

        In transactions of its own.
        Where that is judged again, it is from now: one that waits for a slow queue is not returned every time.
        """

    @abstractmethod
    def renew_lease(self, iteration_id: str, index: int, owner: str, until: datetime) -> bool:
        """Extend a lease; False where it was lost."""

    @abstractmethod
    def finish_shard(self, iteration_id: str) -> int:
        """Count one shard less, in the open transaction; return how many are unfinished."""

    @abstractmethod
    def sweep(self) -> int:
        """Delete what has been kept for the retention time; return how much that was."""

    @abstractmethod
    def hold_tasks(self, tasks: Sequence[Task], using: str) -> list[HeldId]:
        """Write outbox rows in the open transaction of `using`; return their ids."""

    @abstractmethod
    def take_held(self, using: str, *, limit: int = 100) -> Iterator[tuple[HeldId, Task]]:
        """Lease held tasks of `using`, oldest first."""

    @abstractmethod
    def outbox_aliases(self) -> list[str]:
        """Return the aliases that can hold an outbox."""

    @abstractmethod
    def has_outbox(self, alias: str) -> bool:
        """Tell whether an alias can hold an outbox; cheap, to be asked at each enqueue."""

    @abstractmethod
    def open_outboxes(self) -> set[str]:
        """Return the aliases whose outbox this thread may be writing to in an open transaction."""

    @abstractmethod
    def find_held(self, tasks: Sequence[Task], using: str) -> set[tuple[str, str]]:
        """Return queue and name of those of `tasks` that wait in the outbox of `using`."""

    @abstractmethod
    def drop_held(self, using: str, ids: Sequence[HeldId]) -> None:
        """Delete outbox rows whose tasks were accepted."""

    def task_progress(self, task: Task) -> str:
        """Tell how far the shard of a slice has come; "" for any other task.

        Where a process dies on a task twice, and the answers differ, the task got further and is not to blame.
        """
        meta = read_meta(task)
        if meta is None or meta.slice is None:
            return ""
        shards = self.list_shards(meta.slice.iteration)
        return "/".join(
            f"{shard.step}:{shard.done}:{shard.cursor}" for shard in shards if shard.index == meta.slice.shard
        )

    def note_task(self, message: SliceMessage, name: str, before: str | None = None) -> bool:
        """Note the name of the task that a slice has now.

        Args:
            message: the slice.
            name: what its task is called.
            before: the name that must be noted until now; None: whichever is.

        Returns:
            False where the shard has got on, or another name was noted.

        Raises:
            ShardBusyError: another delivery holds the shard.
        """

        def note() -> bool:
            with self.locked_shard(message.iteration, message.shard) as shard:
                if shard is None or not is_at(shard, message) or before not in (None, shard.task):
                    return False
                shard.task = name
                self.save_shard(shard)
            return True

        return self.run(note)

    def check_unheld(self, shard: ShardRecord | None, message: SliceMessage) -> None:
        """Raise ShardBusyError where a delivery of a slice holds its shard by a lease that lives."""
        if shard is not None and shard.until is not None and shard.owner and is_at(shard, message):
            seconds = (shard.until - self.now()).total_seconds()
            if seconds > 0:
                raise ShardBusyError("another delivery has leased the shard", free_in=seconds)

    def _check_idle(self, message: SliceMessage) -> None:
        """Raise ShardBusyError where a delivery of a slice seems to be at work on it: atomic ones have no lease."""
        with self.locked_shard(message.iteration, message.shard) as shard:
            self.check_unheld(shard, message)
            if shard is not None and shard.progressed_at is not None and is_at(shard, message):
                idle = (self.now() - shard.progressed_at).total_seconds()
                if idle < (lease := get_settings().lease_seconds):
                    raise ShardBusyError("the shard got on a moment ago", free_in=lease - idle)

    def task_exhausted(self, task: Task, attempts: int, status: int, *, holder_died: bool = True) -> None:
        """Keep a dead letter for a task that a queue gave up, unless it is a slice that others have left behind.

        Args:
            task: the task.
            attempts: attempts that were answered, or ran out of time.
            status: HTTP status of the last one; 504: it ran out of time; 0: its process died; -1: it waited too long;
                -2: no worker knew what it calls, for a day.
            holder_died: whether all deliveries of it are known to be over.

        Raises:
            ShardBusyError: it is a slice, and another delivery of it may be at work; nothing is kept.
        """
        kind, error = {
            -2: (
                "UnknownTask",
                f"No worker that took it within 24 hours knew {task.path}, or the function that it calls. Bring that "
                "back, or deploy it to the workers, then retry this task; or discard it.",
            ),
            -1: ("Expired", "It waited for as long as tasks are kept (RETENTION_DAYS)."),
            0: ("ProcessDied", f"Its process died while it ran this task alone; {attempts} attempts had ended before."),
            504: ("DeadlineExceeded", f"The last of {attempts} attempts gave no answer within its deadline."),
        }.get(status, ("Exhausted", f"The last of {attempts} attempts was answered with {status}."))
        if self._is_stale(task):
            logger.warning(
                "task %s of queue %s was given up, and is not needed any more: %s", task.name, task.queue, kind
            )
            return
        meta = read_meta(task)
        if not holder_died and meta is not None and meta.slice is not None:
            self._check_idle(meta.slice)
        letter = DeadLetter(task=task, attempts=attempts, error_type=kind, error=error)
        self.add_dead_letter(letter, holder_died=holder_died)

    def task_refused(self, task: Task, error: Exception) -> None:
        """Keep a dead letter for a task that committed, and that its queue does not take.

        Args:
            task: the task.
            error: why not.

        Raises:
            ShardBusyError: it is a slice, and another delivery of it is at work; nothing is kept.
        """
        self.add_dead_letter(DeadLetter(task=task, attempts=0, error_type=type(error).__name__, error=str(error)))

    def _is_stale(self, task: Task) -> bool:
        """Tell whether a task is a slice that would be answered as stale: another delivery has done its work."""
        meta = read_meta(task)
        if meta is None or meta.slice is None:
            return False
        message, iteration = meta.slice, self.get_iteration(meta.slice.iteration)
        shards = [shard for shard in self.list_shards(message.iteration) if shard.index == message.shard]
        if iteration is None or iteration.status != "running" or not shards:
            return True
        [shard] = shards
        return shard.status != "running" or shard.epoch != message.epoch or shard.step > message.step
