"""Slices whose batches, cursors and next tasks commit together."""

from __future__ import annotations

from soc_tasks.logic import stealing
from soc_tasks.logic.slice_runs import SliceRun


class AtomicRun(SliceRun):
    """Batch, cursor and next task in one transaction."""

    def run(self) -> bool:
        """Work until the time is used up or nothing is left; return whether anything was done."""
        breathe = self.state.make_breather()
        while True:
            breathe()
            if (hold := self.gate.ask()) is not None:
                return self.hold_back(hold)
            drained = False
            try:
                with self.state.locked_shard(self.message.iteration, self.message.shard) as shard:
                    iteration = self.judge(shard)
                    if shard is None or iteration is None:
                        return self.progressed
                    goes_on = True
                    if not shard.drained:
                        if self.parks(shard, iteration):
                            return True
                        step = self.call(self.fetch(shard, iteration), shard)
                        goes_on = self.advance(shard, iteration, step)
                    drained = shard.drained
            except Exception as error:
                if not self.skipper.may_skip(error):
                    raise
                # What it wrote is rolled back by now.
                goes_on, drained = self._pass_over(), False
            else:
                self.progressed = True
            if not goes_on or (drained and stealing.find_work(self) is None):
                return True

    def _pass_over(self) -> bool:
        """See to a failure that may be an entity's; return whether the slice goes on."""
        with self.state.locked_shard(self.message.iteration, self.message.shard) as shard:
            iteration = self.judge(shard)
            # Where the place is lost, the next look tells.
            return shard is None or iteration is None or self.skipper.pass_over(shard, iteration)
