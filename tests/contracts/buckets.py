"""How many tasks of a queue may start: the part of the model that knows rates.

Where the contract leaves open how fast a queue goes (it was idle, or its target is overloaded) there is a pair of
numbers, between which a store's must lie.
"""

from __future__ import annotations

import math

from soc_tasks.engine.clock import SECOND
from soc_tasks.values import QueueOptions

#: Seconds after which a queue that was held is held no more; it has a full bucket then, unless it took of it since.
RECOVERED = 160
#: Tasks a second at which a queue starts that was idle for so many seconds; and what it may start at once, then.
SLOW_START, IDLE, AT_FIRST = 10, 60, 10
#: Seconds after which the next task of a queue may go, however much it is held.
LONGEST_HOLD = 60


class Bucket:
    """What a queue may start: known exactly while nothing holds it, else between two bounds.

    Args:
        options: the queue's.
    """

    def __init__(self, options: QueueOptions) -> None:
        self.rate = options.rate_per_second
        self.size = max(10, math.ceil((self.rate or 500) / 5))
        self.ramps = self.rate is not None and self.rate > SLOW_START
        self.tokens, self.filled = float(self.size), None
        #: When an overloaded target last slowed the queue down, if it may still be slow.
        self.pressed = None
        #: When tasks started, and when it was slowed down: by a clock that nobody sets.
        self.starts: list[float] = []
        self.halved = None
        #: When that emptied it; and when that was last tried, by both clocks.
        self.drained, self.refused = None, None

    def fill(self, now):
        if (
            self.pressed is not None
            and now - max(self.pressed, self.filled or 0 if self.rate else 0) >= RECOVERED * SECOND
        ):
            self.pressed, self.tokens, self.filled = None, float(self.size), None
        passed = 0 if self.filled is None else max(0, now - self.filled)
        return min(self.size, self.tokens + passed / SECOND * (self.rate or 0))

    def room(self, now):
        """How many tasks may go now: at least, at most."""
        tokens = int(self.fill(now) + 1e-6)
        if self.pressed is not None:
            return 0, 0 if self.drained == now else self.size
        if self.rate is None:
            return math.inf, math.inf
        if not self.ramps:
            return tokens, tokens
        idle = self.filled is None or now - self.filled >= IDLE * SECOND
        return (AT_FIRST, AT_FIRST) if idle else (0, self.size)

    def may_go_at(self, pace):
        """Whether a queue may be said to be held to so many tasks a second."""
        return pace is None or ((self.ramps or self.pressed is not None) and 0 < pace < (self.rate or 500))

    def is_ahead(self, now):
        """Whether it is of a time that the clock was set back from."""
        return max(self.filled or 0, self.pressed or 0) > now

    def take(self, count, now):
        tokens = self.fill(now)
        if count or (self.filled or 0) > now:
            self.tokens, self.filled = max(0.0, tokens - count), now

    def next_moment(self, now):
        """When the next task may go: at the earliest, at the latest."""
        low, _ = self.room(now)
        if low >= 1:
            return now, now
        if self.pressed is not None:
            return now + (self.drained == now), now + LONGEST_HOLD * SECOND
        if self.ramps:
            return now, now + SECOND // SLOW_START
        moment = now + (1 - self.fill(now)) / self.rate * SECOND
        return math.floor(moment), math.ceil(moment) + 1

    def press(self, now, monotonic):
        # Another refusal within a second changes nothing; nor may one, where the clock was set meanwhile.
        last = self.refused
        if last is None or (now - last[0] >= SECOND and monotonic - last[1] >= 1):
            self.halved, self.drained = monotonic, now
        self.pressed, self.refused = now, (now, monotonic)

    def set_back(self):
        """The clock was set back, and nobody noticed: one that was held may be held again."""
        self.drained = None
        if self.refused is not None:
            self.pressed = self.refused[0]

    def shift_clock(self, by):
        """The clock was set, and that was noticed."""
        self.filled, self.pressed, self.drained = (
            moment and moment + by for moment in (self.filled, self.pressed, self.drained)
        )
        self.refused = self.refused and (self.refused[0] + by, self.refused[1])

    def check(self, count, monotonic):
        """Note that tasks started, and hold the queue to its rate in whatever window: it knows no better."""
        self.starts += [monotonic] * count
        if not count or (self.rate is None and self.pressed is None):
            return
        if self.rate is not None:
            for number, since in enumerate(self.starts):
                assert len(self.starts) - number <= self.size + self.rate * (monotonic - since) + 1e-3
        if self.halved is not None and monotonic - self.halved <= 10:
            # From half the rate at most, doubled in ten seconds.
            flowed = (self.rate or 500) / 2 * 10 / math.log(2) * (2 ** ((monotonic - self.halved) / 10) - 1)
            assert sum(start > self.halved for start in self.starts) <= flowed + 1e-3
