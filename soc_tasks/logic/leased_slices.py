"""Slices that lease their shard: the view runs outside any transaction, and the owner of the lease moves the cursor."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final, TypeVar

from soc_tasks.conf import get_settings
from soc_tasks.logic import stealing
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.heartbeats import is_alive, keep_lease
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.slice_runs import Finalize, Process, SliceRun
from soc_tasks.meta import SliceMessage
from soc_tasks.state.base import IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.locks import is_lock_error

logger = logging.getLogger("soc_tasks")

T = TypeVar("T")

#: What is to be written down: shard and iteration to whether the slice goes on; and what it led to.
Change = Callable[[ShardRecord, IterationRecord], bool]
Written = tuple[ShardRecord, IterationRecord | None, bool]
#: How often a batch that is done is written down where the database undoes that, and seconds before the second time,
#: at most; doubled each time.
TRIES: Final = 6
FIRST_PAUSE: Final = 0.01


class LeaseLostError(ShardBusyError):
    """Another delivery has the shard by now."""


class LeasedRun(SliceRun):
    """Lease, work, advance."""

    def __init__(
        self, message: SliceMessage, plan: Plan, process: Process, budget: Budget, finalize: Finalize | None
    ) -> None:
        super().__init__(message, plan, process, budget, finalize)
        self.owner = uuid.uuid4().hex

    def run(self) -> bool:
        """Work until the time is used up or nothing is left; return whether anything was done."""
        with self.state.locked_shard(self.message.iteration, self.message.shard) as shard:
            iteration = self.judge(shard)
            if shard is None or iteration is None:
                return False
            if shard.owner and is_alive(shard.until, self.state.now()):
                free_in = (shard.until - self.state.now()).total_seconds() if shard.until is not None else None
                raise ShardBusyError("another delivery has leased the shard", free_in=free_in)
            if not shard.drained and self.parks(shard, iteration):
                return True
            self.take_lease(shard)
            self.state.save_shard(shard)
        with keep_lease(self.message.iteration, self.message.shard, self.owner, self.budget.deadline):
            while True:
                if (hold := self.gate.ask()) is not None:
                    return self.hold_back(hold)
                if shard.drained:
                    found = self.insist(partial(stealing.find_work, self))
                    if found is None:
                        return True
                    shard, iteration = found
                shard, iteration, goes_on = self.work(shard, iteration)
                if iteration is None:
                    return self.progressed
                if not goes_on:
                    return True

    def work(self, shard: ShardRecord, iteration: IterationRecord) -> Written:
        """Work off one batch."""
        try:
            step = self.call(self.fetch(shard, iteration), shard)
        except Exception as error:
            if not self.skipper.may_skip(error):
                raise
            return self.write_down(self.skipper.pass_over)
        written = self.write_down(partial(self.advance, step=step))
        self.progressed = self.progressed or written[1] is not None
        if step.error is None or written[1] is None:
            return written
        if not self.skipper.may_skip(step.error):
            raise step.error
        # The part that is done is written down; what failed is next.
        return self.write_down(self.skipper.pass_over) if written[2] else written

    def write_down(self, change: Change) -> Written:
        """Write down what became of a batch, whoever is in the way: it would be done again otherwise.

        Args:
            change: changes shard and iteration in the open transaction, and returns whether the slice goes on.

        Returns:
            The shard, the iteration if it is still there, and whether the slice goes on.
        """
        return self.insist(partial(self._write_down, change))

    def insist(self, write: Callable[[], T]) -> T:
        """Write down that a batch is done, whoever is in the way: it would be done again otherwise."""
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            try:
                return write()
            except LeaseLostError:
                raise
            except Exception as error:
                if not (isinstance(error, ShardBusyError) or is_lock_error(error)):
                    raise
            # By chance, or the same two would meet again.
            time.sleep(pause * random.random())
            pause *= 2
        return write()

    def _write_down(self, change: Change) -> Written:
        with self.state.locked_shard(self.message.iteration, self.message.shard, wait=True) as shard:
            if shard is None:
                raise LeaseLostError("the shard is gone")
            self.check_place(shard)
            iteration = self.state.get_iteration(self.message.iteration)
            if iteration is None:
                return shard, None, False
            self.take_lease(shard)
            return shard, iteration, change(shard, iteration)

    def take_lease(self, shard: ShardRecord) -> None:
        """Own the shard until the lease ends."""
        shard.owner = self.owner
        shard.until = self.state.now() + timedelta(seconds=get_settings().lease_seconds)

    def give_back(self) -> None:
        """Let whoever comes next have the shard at once."""
        try:
            with self.hold_shard() as shard:
                self.let_go(shard)
        except Exception as error:
            if not (isinstance(error, ShardBusyError) or is_lock_error(error)):
                raise
            logger.warning("could not give back the lease of iteration %s; it ends by itself", self.message.iteration)

    def let_go(self, shard: ShardRecord | None) -> None:
        """Give the lease back, in the open transaction, unless it was lost."""
        if shard is not None and self.holds(shard):
            shard.owner, shard.until = "", None
            self.state.save_shard(shard)

    def check_place(self, shard: ShardRecord) -> None:
        """Raise LeaseLostError unless the lease still stands."""
        if not self.holds(shard):
            # 200 would delete the message that the new owner depends on.
            raise LeaseLostError("the lease of the shard was lost")

    def holds(self, shard: ShardRecord | None) -> bool:
        """Tell whether the lease still stands."""
        return shard is not None and shard.owner == self.owner
