"""The fence: what makes a batch count once, whoever delivers it how often.

One delivery runs batch after batch until its time is used up; only its last transaction raises `step` and writes the
next task. So a delivery of the current step resumes at the stored cursor, an older one is dropped, a newer one comes
again, and one of another epoch (the iteration was resumed since) is dropped.

Atomic: the shard's row is locked, and batch, cursor and next task commit in one transaction.
Not atomic: one transaction leases the shard, the view runs outside any, the next transaction advances if the lease
still stands. The owner of the lease alone decides the cursor.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from soc_tasks.conf import get_queues, get_settings
from soc_tasks.errors import DoNotRepeatException, FatalTaskError, PayloadError
from soc_tasks.logic import payloads
from soc_tasks.logic.budgets import Budget, Cut
from soc_tasks.logic.heartbeats import keep_lease
from soc_tasks.logic.plans import Plan, Source, make_source
from soc_tasks.logic.runs import end_run, enqueue_slice, finish_shard, is_last
from soc_tasks.meta import Inherited, SliceMessage
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.locks import is_lock_error, was_undone
from soc_tasks.values import DEFAULT_RETRY

logger = logging.getLogger("soc_tasks")

#: How often a batch that is done is written down where the database undoes that, and seconds before the second time,
#: at most; doubled each time.
TRIES: Final = 6
FIRST_PAUSE: Final = 0.01

#: Runs the view on one batch: entities, context (editable). What is not atomic may end it early.
Process = Callable[[list[Any], dict[str, Any]], Cut | None]
#: Runs `finalize`, with the original context.
Finalize = Callable[[dict[str, Any]], None]


class EarlySliceError(Exception):
    """The delivery is ahead of the shard; it must come again."""


class LeaseLostError(ShardBusyError):
    """Another delivery has the shard by now."""


class HandedOverError(Exception):
    """A batch failed after others had succeeded: the next slice goes on from there."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One batch that was fetched, and the key of what comes after it; or, with no entities, `finalize`.

    When it is done: the context as the view left it, and what came behind a cut.
    """

    entities: list[Any]
    next_key: str | None
    finalizes: bool = False
    context: str = ""
    error: Exception | None = None


def run_slice(
    message: SliceMessage,
    plan: Plan,
    process: Process,
    budget: Budget,
    is_fatal: Callable[[Exception], bool],
    finalize: Finalize | None = None,
) -> bool:
    """Run batches of a shard until the time is used up or nothing is left; or `finalize`, behind the same fence.

    Args:
        message: which slice this delivery is.
        plan: what to iterate over.
        process: runs the view on a batch.
        budget: when to hand over.
        is_fatal: tells exceptions of the view that end the shard.
        finalize: runs what comes after all shards, where it is a function.

    Returns:
        Whether it did anything; False for a delivery that is out of date.

    Raises:
        ShardBusyError: the shard is locked or leased elsewhere, the lease was lost, or the database undid the
            transaction.
        EarlySliceError: the shard is not yet at this step.
        HandedOverError: a batch failed after progress; its cause is the view's exception.
        Exception: what the view raised, where the slice made no progress.
    """
    run = (_AtomicRun if plan.atomic else _LeasedRun)(message, plan, process, budget, finalize)
    try:
        return run.run()
    except (ShardBusyError, EarlySliceError):
        raise
    except Exception as error:
        if is_fatal(error):
            raise
        if run.was_in_the_way(error):
            raise ShardBusyError(describe(error)) from error
        if run.progressed and run.hand_over_after(error):
            raise HandedOverError from error
        run.note_failure(error)
        raise


class _Run:
    """What both ways have in common."""

    def __init__(
        self, message: SliceMessage, plan: Plan, process: Process, budget: Budget, finalize: Finalize | None
    ) -> None:
        self.message = message
        self.plan = plan
        self.process = process
        self.finalize = finalize
        self.budget = budget
        self.progressed = False
        self.state = get_state()
        self.source: Source | None = None
        self.repeats = True
        #: What the view raised.
        self.failure: Exception | None = None
        #: Whether to wait for whoever holds the shard.
        self.waits = not plan.atomic

    def run(self) -> bool:
        raise NotImplementedError

    def judge(self, shard: ShardRecord | None) -> IterationRecord | None:
        """Compare the message with the shard; return the iteration if this delivery may work on it."""
        iteration = None if shard is None else self.state.get_iteration(self.message.iteration)
        if shard is None or iteration is None or shard.status != "running" or iteration.status != "running":
            return None
        if shard.epoch != self.message.epoch or self.message.step < shard.step:
            return None
        if self.message.step > shard.step:
            raise EarlySliceError(f"step {self.message.step} of shard {shard.index}, which is at {shard.step}")
        return iteration

    def fetch(self, shard: ShardRecord, iteration: IterationRecord) -> _Step:
        """Fetch the batch at the cursor."""
        if is_last(iteration, shard):
            return _Step([], None, finalizes=True)
        if self.source is None:
            # The original context: edits of the view must not change what is iterated over.
            self.source = make_source(self.plan, payloads.loads(iteration.options["context"]))
        key = shard.cursor if shard.cursor is not None else (shard.start or self.source.start_key)
        entities, next_key = self.source.fetch(key, end_key=shard.end)
        if next_key is not None and next_key == key:
            raise FatalTaskError(f"The logic returned its own start_key {key!r} again; it would never end.")
        return _Step(list(entities), next_key)

    def call(self, step: _Step, shard: ShardRecord) -> _Step:
        """Run the view on a batch (an empty one needs none), and return what of it is done."""
        if not step.entities and not step.finalizes:
            return dataclasses.replace(step, context=shard.context)
        cut: Cut | None = None
        context = payloads.loads(shard.context)
        try:
            if not step.finalizes:
                cut = self.process(step.entities, context)
            elif self.finalize is not None:
                self.finalize(context)
        except DoNotRepeatException:
            self.repeats = False
        except Exception as error:
            self.failure = error
            raise
        if step.finalizes:
            return dataclasses.replace(step, context=shard.context)
        try:
            step = dataclasses.replace(step, context=payloads.dumps(context, "context"))
        except PayloadError as error:
            # It would be put there again, and the batch would be done again, at each attempt.
            raise FatalTaskError(f"The view put something into its context that cannot travel: {error}") from error
        return step if cut is None else self.cut_off(step, cut)

    def cut_off(self, step: _Step, cut: Cut) -> _Step:
        """Return what is done of a batch that ended early; the next one begins with the first that is not."""
        assert self.source is not None  # the batch came from it
        next_key = self.source.logic.get_key(step.entities[cut.done], order=self.source.order)
        self.failure = cut.error
        return dataclasses.replace(step, entities=step.entities[: cut.done], next_key=next_key, error=cut.error)

    def advance(self, shard: ShardRecord, iteration: IterationRecord, step: _Step) -> bool:
        """Move the cursor past a batch, in the open transaction; return whether the slice goes on."""
        shard.cursor = step.next_key
        shard.done += len(step.entities)
        shard.context = step.context
        shard.attempts = 0
        shard.error = ""
        shard.progressed_at = self.state.now()
        if not self.repeats and iteration.options.get("repeats", True):
            iteration.options["repeats"] = False
            self.state.save_options(iteration)
        if step.next_key is None:
            shard.status, shard.owner, shard.until = "done", "", None
            self.state.save_shard(shard)
            (end_run if step.finalizes else finish_shard)(iteration, self.plan)
            return False
        if iteration.status != "running" or shard.epoch != self.message.epoch:
            shard.owner, shard.until = "", None
            self.state.save_shard(shard)
            return False
        # After an error it is the error's handling that hands over.
        goes_on = step.error is not None or not self.budget.is_used_up()
        if not goes_on:
            self.hand_over(shard, iteration)
        self.state.save_shard(shard)
        return goes_on

    def hand_over(self, shard: ShardRecord, iteration: IterationRecord, countdown: float | None = None) -> None:
        """Write the next slice, in the open transaction."""
        shard.step += 1
        shard.owner, shard.until = "", None
        enqueue_slice(iteration, shard, countdown=countdown)

    def hand_over_after(self, error: Exception) -> bool:
        """Let the next slice try the batch that failed; False where this delivery has lost its place."""
        try:
            return self._hand_over_after(error)
        except ShardBusyError:
            return False

    def _hand_over_after(self, error: Exception) -> bool:
        with self.state.locked_shard(self.message.iteration, self.message.shard, wait=self.waits) as shard:
            iteration = self.judge(shard) if self.holds(shard) else None
            if shard is None or iteration is None:
                return False
            shard.error = describe(error)
            self.hand_over(shard, iteration, countdown=_first_backoff(iteration))
            self.state.save_shard(shard)
        return True

    def note_failure(self, error: Exception) -> None:
        """Count a failure without progress, and give the lease back."""
        try:
            with self.state.locked_shard(self.message.iteration, self.message.shard, wait=self.waits) as shard:
                if shard is None or not self.holds(shard):
                    return
                shard.attempts += 1
                shard.error = describe(error)
                shard.owner, shard.until = "", None
                self.state.save_shard(shard)
        except ShardBusyError:
            logger.warning("could not note a failure of iteration %s; its lease ends by itself", self.message.iteration)

    def was_in_the_way(self, error: Exception) -> bool:
        """Tell whether the slice failed of others, and not of what it does.

        The view of an atomic batch may be a victim as well; a lock that it waits for in vain may be its own.
        """
        if error is self.failure:
            return self.plan.atomic and was_undone(error)
        return is_lock_error(error)

    def holds(self, shard: ShardRecord | None) -> bool:
        """Tell whether this delivery still has the shard."""
        return shard is not None


class _AtomicRun(_Run):
    """Batch, cursor and next task in one transaction."""

    def run(self) -> bool:
        breathe = self.state.make_breather()
        while True:
            breathe()
            with self.state.locked_shard(self.message.iteration, self.message.shard) as shard:
                iteration = self.judge(shard)
                if shard is None or iteration is None:
                    return self.progressed
                step = self.call(self.fetch(shard, iteration), shard)
                goes_on = self.advance(shard, iteration, step)
            self.progressed = True
            if not goes_on:
                return True


class _LeasedRun(_Run):
    """Lease, work, advance."""

    def __init__(
        self, message: SliceMessage, plan: Plan, process: Process, budget: Budget, finalize: Finalize | None
    ) -> None:
        super().__init__(message, plan, process, budget, finalize)
        self.owner = uuid.uuid4().hex

    def run(self) -> bool:
        with self.state.locked_shard(self.message.iteration, self.message.shard) as shard:
            iteration = self.judge(shard)
            if shard is None or iteration is None:
                return False
            if shard.owner and _is_alive(shard.until, self.state.now()):
                raise ShardBusyError("another delivery has leased the shard")
            self.take_lease(shard)
            self.state.save_shard(shard)
        with keep_lease(self.message.iteration, self.message.shard, self.owner, self.budget.deadline):
            while True:
                step = self.call(self.fetch(shard, iteration), shard)
                shard, iteration, goes_on = self.write_down(step)
                if iteration is None:
                    return self.progressed
                self.progressed = True
                if step.error is not None:
                    raise step.error
                if not goes_on:
                    return True

    def write_down(self, step: _Step) -> tuple[ShardRecord, IterationRecord | None, bool]:
        """Advance past a batch that is done, whoever is in the way: it would be done again otherwise.

        Returns:
            The shard, the iteration if it is still there, and whether the slice goes on.
        """
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            try:
                return self._write_down(step)
            except LeaseLostError:
                raise
            except Exception as error:
                if not (isinstance(error, ShardBusyError) or is_lock_error(error)):
                    raise
            # By chance, or the same two would meet again.
            time.sleep(pause * random.random())
            pause *= 2
        return self._write_down(step)

    def _write_down(self, step: _Step) -> tuple[ShardRecord, IterationRecord | None, bool]:
        with self.state.locked_shard(self.message.iteration, self.message.shard, wait=True) as shard:
            if shard is None or not self.holds(shard):
                # 200 would delete the message that the new owner depends on.
                raise LeaseLostError("the lease of the shard was lost")
            iteration = self.state.get_iteration(self.message.iteration)
            if iteration is None:
                return shard, None, False
            self.take_lease(shard)
            return shard, iteration, self.advance(shard, iteration, step)

    def take_lease(self, shard: ShardRecord) -> None:
        """Own the shard until the lease ends."""
        shard.owner = self.owner
        shard.until = self.state.now() + timedelta(seconds=get_settings().lease_seconds)

    def holds(self, shard: ShardRecord | None) -> bool:
        """Tell whether the lease still stands."""
        return shard is not None and shard.owner == self.owner


def describe(error: BaseException) -> str:
    """Return an exception as one line for a record."""
    return f"{type(error).__name__}: {error}"[:2000]


def _first_backoff(iteration: IterationRecord) -> float:
    inherited = Inherited.from_dict(iteration.options["inherited"])
    queue = get_queues().get(inherited.queue)
    base = queue.retry if queue is not None else DEFAULT_RETRY
    return (inherited.retry.over(base) if inherited.retry is not None else base).min_backoff or 0.0


def _is_alive(until: datetime | None, now: datetime) -> bool:
    """Tell whether a lease that ends at `until` stands; one that is longer than leases are is of a clock set back."""
    return until is not None and now < until <= now + timedelta(seconds=get_settings().lease_seconds + 1)
