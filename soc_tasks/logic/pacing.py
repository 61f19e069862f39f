"""How large a batch is: it steers itself to a duration, unless its size was given.

Short batches pay for their commits, long ones repeat much after a kill, and keep locks and a pause waiting.
"""

from __future__ import annotations

import time
from typing import Final

from soc_tasks.logic.full_logic import MAX_BATCH_SIZE

#: A batch is at most so many times as large, or as small, as the one before.
STRIDE: Final = 2

#: Tells how long a batch took; seconds.
clock = time.monotonic


def steer(size: int, worked: int, seconds: float, target: float) -> int:
    """Return how many entities the next batch should have.

    Args:
        size: how many the last one might have had.
        worked: how many it had; fewer say nothing of how long more would take.
        seconds: how long it took.
        target: seconds that a batch should take.
    """
    if not worked:
        return size
    wanted = worked * target / max(seconds, 1e-6)
    highest = size * STRIDE if worked >= size else size
    return max(1, min(round(min(max(wanted, worked / STRIDE), highest)), MAX_BATCH_SIZE))


class Pace:
    """Measures batches, and tells the size of the next.

    Args:
        size: entities of the first batch.
        target: seconds that a batch should take.
        most: entities that one may have.
    """

    def __init__(self, size: int, target: float, most: int = MAX_BATCH_SIZE) -> None:
        self._most = most
        self.size = min(size, most)
        self._target = target
        self._started = 0.0

    def begin(self) -> int:
        """Begin a batch, and return how many entities it may have."""
        self._started = clock()
        return self.size

    def end(self, worked: int) -> None:
        """End a batch in which `worked` entities were done."""
        self.size = min(steer(self.size, worked, clock() - self._started, self._target), self._most)
