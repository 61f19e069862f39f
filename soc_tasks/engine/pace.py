"""How fast tasks go here: how many are claimed ahead, and how many threads do good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from soc_tasks.engine.attempts import Job
from soc_tasks.engine.pool import Pool

#: Most tasks that a process holds at one time, unless told otherwise.
MOST_CLAIMED: Final = 200
#: Seconds of work that are claimed ahead.
AHEAD: Final = 0.05
#: Seconds that a task is held to take before anything is known.
UNKNOWN: Final = 0.01
#: Tasks that take longer, in seconds, are answered for one by one.
SLOW: Final = 0.002
#: Seconds without an answer after which tasks no longer count as quick, and without a free thread after which those
#: that were claimed ahead go back.
STALLED: Final = 0.1
#: Share of a processor below which the threads that run wait for something else, so that one more helps; and above
#: which they wait for each other, so that one less does. Judged over so many seconds.
IDLE, BUSY, LOOK_BACK = 0.5, 0.8, 0.02


class Pace:
    """Watches the threads of a pool.

    Args:
        pool: the threads.
        window: how many tasks a process may hold at one time.
    """

    def __init__(self, pool: Pool, window: int = MOST_CLAIMED) -> None:
        self._pool = pool
        self._window = window
        #: Moving average of the seconds that a task takes.
        self._average = UNKNOWN
        self._answered_at = 0.0
        self._helpers = 1
        self._used = (0.0, 0.0)

    def note(self, done: Sequence[Job], now: float) -> None:
        """Take answers into account: each for a tenth, ten at once for all."""
        mean = sum(job.seconds for job in done) / len(done)
        self._average += (mean - self._average) * min(1.0, 0.1 * len(done))
        self._answered_at = now

    def is_quick(self, now: float) -> bool:
        """Tell whether tasks take no time, so that answers are gathered."""
        return self._average < SLOW and now - self._answered_at < STALLED

    def room(self, in_flight: int, now: float) -> int:
        """Return how many tasks may be claimed beside those in flight: what runs in 50 ms, and one for each thread."""
        average, threads = self._average, self._pool.size
        if in_flight >= threads:
            # No thread may be free for long, whatever tasks took before.
            average = max(average, self._held_for(now))
        ahead = int(threads * AHEAD / max(average, 1e-6))
        return max(0, min(self._window, max(threads, ahead)) - in_flight)

    @property
    def portion(self) -> int | None:
        """Return how many tasks of a queue are claimed at a time; None: all that there is room for.

        Slow ones, and those of which nothing is known yet, one by one: other processes are to get some, before this one
        has them in threads that share one interpreter.
        """
        return 1 if self._average >= UNKNOWN else None

    def is_stalled(self, now: float) -> bool:
        """Tell whether tasks that were claimed ahead wait behind slow ones; another process may have a thread free."""
        return self._pool.queued > 0 and self._held_for(now) > STALLED

    def _held_for(self, now: float) -> float:
        """Return for how long all threads have been busy with what they run now; 0 if one is free."""
        running = self._pool.running()
        return now - max(job.began for job in running) if len(running) >= self._pool.size else 0.0

    def count_helpers(self, now: float) -> int:
        """Return how many threads do good: one more while the processor has nothing to do, one less while it has."""
        since, before = self._used
        if now - since >= LOOK_BACK:
            used = time.process_time()
            share = (used - before) / (now - since)
            if share > BUSY:
                self._helpers = max(1, self._helpers - 1)
            elif share < IDLE and self._pool.queued:
                self._helpers = min(self._pool.size, self._helpers + 1)
            self._used = (now, used)
        return self._helpers
