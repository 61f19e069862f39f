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
            self.progressed = True
            if not goes_on or (shard.drained and stealing.find_work(self) is None):
                return True
