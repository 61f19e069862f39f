"""What all deliveries of slices do: judge the message, fetch, run the view, advance, hand over."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from soc_tasks.conf import get_queues, get_settings
from soc_tasks.errors import DoNotRepeatException, FatalTaskError, PayloadError
from soc_tasks.logic import parking, payloads, stealing
from soc_tasks.logic.budgets import Budget, Cut
from soc_tasks.logic.failed_items import LedgerSource, open_source
from soc_tasks.logic.full_logic import MAX_BATCH_SIZE
from soc_tasks.logic.pacing import Pace
from soc_tasks.logic.plans import Plan, Source, make_source
from soc_tasks.logic.progress import next_rate
from soc_tasks.logic.runs import end_run, enqueue_slice, finish_shard, is_last
from soc_tasks.logic.skipping import Skipper
from soc_tasks.logic.throttling import Gate
from soc_tasks.meta import Inherited, SliceMessage
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.locks import is_lock_error, was_undone
from soc_tasks.values import DEFAULT_RETRY, Hold

logger = logging.getLogger("soc_tasks")

#: Runs the view on one batch: entities, context (editable). What is not atomic may end it early.
Process = Callable[[list[Any], dict[str, Any]], Cut | None]
#: Runs `finalize`, with the original context.
Finalize = Callable[[dict[str, Any]], None]


class EarlySliceError(Exception):
    """The delivery is ahead of the shard; it must come again."""


@dataclass(frozen=True, slots=True)
class Step:
    """One batch that was fetched, and the key of what comes after it; or, with no entities, `finalize`.

    When it is done: the context as the view left it, what came behind a cut, and how many entities were given up.
    """

    entities: list[Any]
    next_key: str | None
    #: Where it begins.
    key: str | None = None
    finalizes: bool = False
    context: str = ""
    error: Exception | None = None
    failed: int = 0


class SliceRun:
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
        self.began = self.state.now()
        self.source: Source | LedgerSource | None = None
        self.gate = Gate(plan.throttle)
        self.pace: Pace | None = None
        #: Tells exceptions that may be an entity's own; and what becomes of it then.
        self.is_items: Callable[[Exception], bool] = lambda error: True
        self.skipper = Skipper(self)
        self.repeats = True
        #: What the view raised.
        self.failure: Exception | None = None
        #: Whether to wait for whoever holds the shard.
        self.waits = not plan.atomic

    def run(self) -> bool:
        """Work until the time is used up or nothing is left; return whether anything was done."""
        raise NotImplementedError

    def judge(self, shard: ShardRecord | None) -> IterationRecord | None:
        """Compare the message with the shard; return the iteration if this delivery may work on it."""
        if shard is not None and shard.status == "parked":
            parking.look_for_room(shard)
            return None
        iteration = None if shard is None else self.state.get_iteration(self.message.iteration)
        if shard is None or iteration is None or shard.status != "running" or iteration.status != "running":
            return None
        if shard.epoch != self.message.epoch or self.message.step < shard.step:
            return None
        if self.message.step > shard.step:
            raise EarlySliceError(f"step {self.message.step} of shard {shard.index}, which is at {shard.step}")
        return iteration

    def fetch(self, shard: ShardRecord, iteration: IterationRecord) -> Step:
        """Fetch the batch at the cursor."""
        if is_last(iteration, shard):
            return Step([], None, finalizes=True)
        source = self.get_source(iteration)
        if self.pace is None and (size := source.first_size) is not None:
            atomic = self.plan.atomic
            self.pace = Pace(
                shard.batch_size or size,
                self.state.bound_batch(get_settings().batch_seconds, atomic),
                self.state.bound_size(MAX_BATCH_SIZE, atomic),
            )
        size = None if self.pace is None else self.pace.begin()
        if shard.halved is not None:
            size = shard.halved
        key = shard.cursor if shard.cursor is not None else (shard.start or source.start_key)
        entities, next_key = self.state.read_batch(lambda: source.fetch(key, end_key=shard.end, limit=size))
        if next_key is not None and next_key == key:
            raise FatalTaskError(f"The logic returned its own start_key {key!r} again; it would never end.")
        entities = list(entities)
        if shard.halved is not None and len(entities) > shard.halved:
            raise FatalTaskError(
                f"getBatchOfData of {type(source.logic).__name__} was asked for {shard.halved} entities and "
                f'returned {len(entities)}: a batch that fails cannot be halved then, as on_error="skip" does.'
            )
        return Step(entities, next_key, key)

    def get_source(self, iteration: IterationRecord) -> Source | LedgerSource:
        """Return what is iterated over."""
        if self.source is None:
            # The original context: edits of the view must not change what is iterated over.
            source = make_source(self.plan, payloads.loads(iteration.options["context"]))
            self.plan, self.source = open_source(self.plan, source, iteration)
        return self.source

    def call(self, step: Step, shard: ShardRecord) -> Step:
        """Run the view on a batch (an empty one needs none), and return what of it is done."""
        if not step.entities and not step.finalizes:
            return dataclasses.replace(step, context=shard.context)
        cut: Cut | None = None
        context = payloads.loads(shard.context)
        self.failure = None
        self.skipper.note_try(step, shard)
        try:
            if not step.finalizes:
                cut = self.process(step.entities, context)
            elif self.finalize is not None:
                self.finalize(context)
        except DoNotRepeatException:
            self.repeats = False
        except Exception as error:
            self.failure = error
            self.skipper.note_failure(error)
            raise
        if step.finalizes:
            return dataclasses.replace(step, context=shard.context)
        try:
            step = dataclasses.replace(step, context=payloads.dumps(context, "context"))
        except PayloadError as error:
            # It would be put there again, and the batch would be done again, at each attempt.
            raise FatalTaskError(f"The view put something into its context that cannot travel: {error}") from error
        return step if cut is None else self.cut_off(step, cut)

    def cut_off(self, step: Step, cut: Cut) -> Step:
        """Return what is done of a batch that ended early; the next one begins with the first that is not."""
        self.failure = cut.error
        if cut.error is not None:
            self.skipper.note_failure(cut.error, cut.done)
            if self.plan.atomic or not cut.done:
                raise cut.error
        next_key = self.find_next_key(step, cut.done - 1)
        return dataclasses.replace(step, entities=step.entities[: cut.done], next_key=next_key, error=cut.error)

    def find_next_key(self, step: Step, place: int) -> str | None:
        """Return the key of what comes after one of the entities of a batch."""
        assert self.source is not None  # the batch came from it
        return (
            step.next_key
            if place + 1 == len(step.entities)
            else self.source.get_key(step.entities[place + 1], place + 1)
        )

    def advance(self, shard: ShardRecord, iteration: IterationRecord, step: Step) -> bool:
        """Move the cursor past a batch, in the open transaction; return whether the slice goes on."""
        shard.cursor = step.next_key
        shard.done += len(step.entities)
        shard.context = step.context
        shard.attempts, shard.advanced = 0, True
        shard.error = shard.hold = ""
        shard.failed += step.failed
        if self.pace is not None and step.entities and shard.halved is None:
            self.pace.end(len(step.entities))
            shard.batch_size = self.pace.size
        self.note_rate(shard, iteration, len(step.entities) + step.failed)
        self.skipper.narrow(shard, len(step.entities))
        if self.source is not None and not self.source.settle(step.entities) and self.plan.atomic:
            raise ShardBusyError("another retry has done these failed items in between")
        if not self.repeats and iteration.options.get("repeats", True):
            self.end_repeating(iteration)
        if step.finalizes or (step.next_key is None and not self.may_steal(shard, iteration)):
            self.end_shard(shard, iteration, finalizes=step.finalizes)
            return False
        shard.drained = step.next_key is None
        # After an error it is the error's handling that hands over.
        return self.go_on(shard, iteration, fails=step.error is not None)

    def end_repeating(self, iteration: IterationRecord) -> None:
        """Note that no run follows, in the open transaction that holds the shard."""
        iteration.options["repeats"] = False
        # Read anew: the view ran since, and whoever tries failed items again, for one, writes options of its own.
        now = self.state.get_iteration(iteration.id, lock=True)
        if now is not None:
            now.options["repeats"] = False
            self.state.save_options(now)

    def go_on(self, shard: ShardRecord, iteration: IterationRecord, *, fails: bool = False) -> bool:
        """Save a shard, and hand over where it is time; return whether the slice goes on.

        Args:
            shard, iteration: as they stand.
            fails: whether a failure is yet to be seen to.
        """
        if iteration.status != "running" or shard.epoch != self.message.epoch:
            shard.owner, shard.until = "", None
            self.state.save_shard(shard)
            return False
        goes_on = fails or not self.budget.is_used_up()
        # Where one entity has yet to be given up, what is behind it is known by the end that was.
        if iteration.wanted and not shard.drained and not fails:
            stealing.give_away(self, shard, iteration)
        if not fails and not shard.drained and parking.park(shard, iteration):
            return False
        if not goes_on:
            self.hand_over(shard, iteration)
        self.state.save_shard(shard)
        return goes_on

    def note_rate(self, shard: ShardRecord, iteration: IterationRecord, done: int) -> None:
        """Note that the shard has got on, and how fast it gets on of late."""
        now = self.state.now()
        # The first batch may have waited for its turn long after the iteration began.
        since = shard.progressed_at or self.began
        begun = iteration.created if shard.rate and iteration.created is not None else since
        seconds, age = (now - since).total_seconds(), (now - begun).total_seconds()
        shard.rate = next_rate(shard.rate, done, seconds, age)
        shard.progressed_at = now

    def may_steal(self, shard: ShardRecord, iteration: IterationRecord) -> bool:
        """Tell whether a shard whose range is done is to look for more, in the open transaction."""
        if shard.epoch != self.message.epoch:
            return False
        source = self.get_source(iteration)
        return isinstance(source, Source) and stealing.may_steal(source, iteration, shard)

    def end_shard(self, shard: ShardRecord, iteration: IterationRecord, *, finalizes: bool = False) -> None:
        """Note that a shard is done, and see to what follows, in the open transaction."""
        shard.status, shard.owner, shard.until = "done", "", None
        self.state.save_shard(shard)
        if finalizes:
            end_run(iteration, self.plan)
        elif not finish_shard(iteration, self.plan):
            parking.wake(iteration.id)

    def parks(self, shard: ShardRecord, iteration: IterationRecord) -> bool:
        """Park a shard that has yet to begin its slice, in the open transaction, if others are enough."""
        return not is_last(iteration, shard) and parking.park(shard, iteration)

    def hand_over(
        self, shard: ShardRecord, iteration: IterationRecord, countdown: float | None = None, *, held: bool = False
    ) -> None:
        """Write the next slice, in the open transaction."""
        hand_over(shard, iteration, countdown=countdown, held=held)

    def hold_back(self, hold: Hold) -> bool:
        """Let the next slice go on when the throttle may; return whether this delivery has done anything."""
        with self.hold_shard() as shard:
            iteration = self.judge(shard) if self.holds(shard) else None
            if shard is None or iteration is None:
                self.let_go(shard)
                return self.progressed
            shard.hold = hold.reason
            self.hand_over(shard, iteration, countdown=hold.seconds, held=True)
            self.state.save_shard(shard)
        return True

    def hand_over_after(self, error: Exception) -> bool:
        """Let the next slice try the batch that failed; False where this delivery has lost its place."""
        try:
            return self._hand_over_after(error)
        except ShardBusyError:
            return False

    def _hand_over_after(self, error: Exception) -> bool:
        with self.hold_shard() as shard:
            iteration = self.judge(shard) if self.holds(shard) else None
            if shard is None or iteration is None:
                return False
            shard.error = describe(error)
            self.hand_over(shard, iteration, countdown=first_backoff(iteration))
            self.state.save_shard(shard)
        return True

    def note_failure(self, error: Exception) -> None:
        """Count a failure without progress, and give the lease back."""
        try:
            with self.hold_shard() as shard:
                if shard is None or not self.holds(shard):
                    return
                shard.attempts += 1
                shard.error = describe(error)
                shard.owner, shard.until = "", None
                self.state.save_shard(shard)
        except ShardBusyError:
            logger.warning("could not note a failure of iteration %s; its lease ends by itself", self.message.iteration)

    def give_back(self) -> None:
        """Let whoever comes next have the shard at once, where this delivery has leased it."""

    def let_go(self, shard: ShardRecord | None) -> None:
        """Give the lease back, in the open transaction, where this delivery has one."""

    def was_in_the_way(self, error: Exception) -> bool:
        """Tell whether the slice failed of others, and not of what it does.

        The view of an atomic batch may be a victim as well; a lock that it waits for in vain may be its own.
        """
        if error is self.failure:
            return self.plan.atomic and was_undone(error)
        return is_lock_error(error)

    def hold_shard(self) -> AbstractContextManager[ShardRecord | None]:
        """Open a transaction that holds the shard."""
        return self.state.locked_shard(self.message.iteration, self.message.shard, wait=self.waits)

    def check_place(self, shard: ShardRecord) -> None:
        """Raise ShardBusyError where this delivery has lost its shard to another."""

    def holds(self, shard: ShardRecord | None) -> bool:
        """Tell whether this delivery still has the shard."""
        return shard is not None


def describe(error: BaseException) -> str:
    """Return an exception as one line for a record."""
    return f"{type(error).__name__}: {error}"[:2000]


def hand_over(
    shard: ShardRecord, iteration: IterationRecord, *, countdown: float | None = None, held: bool = False
) -> None:
    """Write the next slice of a shard, which its holder saves, in the open transaction."""
    shard.step += 1
    shard.owner, shard.until, shard.task, shard.advanced = "", None, "", False
    enqueue_slice(iteration, shard, countdown=countdown, held=held)


def first_backoff(iteration: IterationRecord) -> float:
    """Return the seconds before the first retry of an iteration's slices."""
    inherited = Inherited.from_dict(iteration.options["inherited"])
    queue = get_queues().get(inherited.queue)
    base = queue.retry if queue is not None else DEFAULT_RETRY
    return (inherited.retry.over(base) if inherited.retry is not None else base).min_backoff or 0.0
