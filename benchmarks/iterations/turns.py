"""Atomic batches in turns with the same transactions that keep no place, in one thread.

What a place costs stands out then, however the machine's speed changes from one second to the next.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.iterations import shapes
from soc_tasks.logic.atomic_slices import AtomicRun

#: Seconds that each batch took.
ours: list[float] = []
theirs: list[float] = []

_run_batch = AtomicRun.run_batch


class Turns:
    """Runs a batch of the bare loop with each batch of the iteration: now before it, now after."""

    def __init__(self) -> None:
        self._last = 0

    def take(self, run: AtomicRun) -> Any:
        """Run one batch of each."""
        first = len(ours) % 2 == 0
        if first:
            self._take_theirs()
        begin = time.perf_counter()
        goes_on = _run_batch(run)
        ours.append(time.perf_counter() - begin)
        if not first:
            self._take_theirs()
        return goes_on

    def _take_theirs(self) -> None:
        begin = time.perf_counter()
        self._last = shapes.work_on_batch(self._last) or 0
        theirs.append(time.perf_counter() - begin)


def begin() -> None:
    """Have the iterations of this process take turns from here on."""
    turns = Turns()
    ours.clear()
    theirs.clear()

    def take(run: AtomicRun) -> Any:
        return turns.take(run)

    AtomicRun.run_batch = take  # type: ignore[method-assign]


def end() -> None:
    """Leave them to themselves again."""
    AtomicRun.run_batch = _run_batch  # type: ignore[method-assign]
