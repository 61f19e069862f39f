"""Slices whose batches, cursors and next tasks commit together."""

from __future__ import annotations

import random
import time
from typing import Final

from soc_tasks.logic import stealing
from soc_tasks.logic.slice_runs import SliceRun
from soc_tasks.state.undone import UndoneError

#: How often a batch is run that the store undoes at its end, and seconds before the second time, at most; doubled each
#: time. A store without locks undoes one of two that met, and it has nothing to do with the batch.
TRIES: Final = 6
FIRST_PAUSE: Final = 0.05


class AtomicRun(SliceRun):
    """Batch, cursor and next task in one transaction."""

    def run(self) -> bool:
        """Work until the time is used up or nothing is left; return whether anything was done."""
        breathe = self.state.make_breather()
        while True:
            breathe()
            if (hold := self.gate.ask()) is not None:
                return self.hold_back(hold)
            goes_on = self.run_batch()
            if goes_on is None:
                return self.progressed
            if not goes_on:
                return True

    def run_batch(self) -> bool | None:
        """Run one batch; return whether the slice goes on, or None where this delivery is out of date."""
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            try:
                return self._run_batch()
            except UndoneError:
                # Nothing of it was done. By chance, or the same two would meet again.
                time.sleep(pause * random.random())
                pause *= 2
        return self._run_batch()

    def _run_batch(self) -> bool | None:
        drained = False
        try:
            with self.state.locked_shard(self.message.iteration, self.message.shard, for_view=True) as shard:
                iteration = self.judge(shard)
                if shard is None or iteration is None:
                    return None
                goes_on = True
                if not shard.drained:
                    if self.parks(shard, iteration):
                        return False
                    step = self.call(self.fetch(shard, iteration), shard)
                    goes_on = self.advance(shard, iteration, step)
                drained = shard.drained
        except Exception as error:
            if isinstance(error, UndoneError) or not self.skipper.may_skip(error):
                raise
            # What it wrote is rolled back by now.
            goes_on, drained = self._pass_over(), False
        else:
            self.progressed = True
        return goes_on and not (drained and stealing.find_work(self) is None)

    def _pass_over(self) -> bool:
        """See to a failure that may be an entity's; return whether the slice goes on."""
        with self.state.locked_shard(self.message.iteration, self.message.shard) as shard:
            iteration = self.judge(shard)
            # Where the place is lost, the next look tells.
            return shard is None or iteration is None or self.skipper.pass_over(shard, iteration)
