"""When and why a worker ends: it is stopped, it is due to be replaced, or a thread of its process hangs."""

from __future__ import annotations

import logging
import mmap
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

logger = logging.getLogger("soc_tasks.engine")

MIB: Final = 1024 * 1024
#: Share by which limits differ from process to process, so that they are not replaced all at one time.
JITTER: Final = 0.1
#: Seconds between looks at the memory.
LOOK: Final = 1.0


class Limits(NamedTuple):
    """After what a process is replaced.

    Args:
        tasks: so many attempts.
        memory: so many bytes of resident memory.
    """

    tasks: int | None = None
    memory: int | None = None


NO_LIMITS: Final = Limits()


def measure_memory() -> int | None:
    """Return the resident memory of this process in bytes; where only its peak can be told, that; else None."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


class Recycling:
    """Tells when a process has come to its limits.

    Args:
        limits: the limits, before jitter.
        measure: tells the memory.
        spread: gives a number between two.
    """

    def __init__(
        self,
        limits: Limits,
        measure: Callable[[], int | None] = measure_memory,
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._measure = measure
        self._tasks, self._memory = (
            None if limit is None else max(1, round(limit * spread(1 - JITTER, 1 + JITTER))) for limit in limits
        )
        self._ran = 0
        self._look_at = 0.0

    def count(self) -> None:
        """Count an attempt that was answered."""
        self._ran += 1

    def fit(self, room: int, in_flight: int) -> int:
        """Return how many of `room` tasks may yet be claimed beside those in flight."""
        return room if self._tasks is None else max(0, min(room, self._tasks - self._ran - in_flight))

    def find_reason(self, now: float) -> str | None:
        """Return why the process is to be replaced, or None; memory is looked at every second."""
        if self._tasks is not None and self._ran >= self._tasks:
            return f"it has run {self._ran} tasks"
        if self._memory is None or now < self._look_at or not self._ran:
            # One that has run nothing yet would be replaced by its like, for ever.
            return None
        self._look_at = now + LOOK
        used = self._measure()
        if used is None or used < self._memory:
            return None
        return f"it holds {used // MIB} MiB of memory after {self._ran} tasks"


class Ending:
    """How a worker comes to its end.

    Args:
        grace: seconds that running tasks get when the worker is stopped; one that is replaced for its limits waits for
            them as long as they take.
        replaced: whether whoever started this process replaces it.
        recycling: tells when it has come to its limits.
    """

    def __init__(self, grace: float, replaced: bool, recycling: Recycling) -> None:
        self._grace = grace
        self._replaced = replaced
        self._recycling = recycling
        self._stopped_at: float | None = None
        #: Set when nothing more is to be claimed.
        self.begun = threading.Event()
        #: Whether this process is to be replaced.
        self.recycled = False
        #: Whether a thread is left behind that cannot be stopped.
        self.hung = False

    def stop(self) -> None:
        """Have the worker end within the grace period."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self.begun.set()

    def look(self, now: float) -> None:
        """Begin to end if a limit is reached."""
        if self._replaced and not self.begun.is_set() and (reason := self._recycling.find_reason(now)):
            self.recycled = True
            logger.info("this process ends as soon as its tasks have, and is replaced: %s", reason)
            self.begun.set()

    def leave_behind(self, queue: str, task: str) -> None:
        """Begin to end because the thread of a task cannot be stopped, if the process is replaced then."""
        if self._replaced and not self.hung:
            self.recycled = self.hung = True
            logger.warning(
                "task %s of queue %s outlived its deadline and cannot be stopped; "
                "this process ends as soon as its other tasks have, and is replaced",
                task,
                queue,
            )
            self.stop()

    def is_over(self, *, idle: bool, in_trouble: bool) -> bool:
        """Tell whether a worker that has begun to end has come to it.

        Args:
            idle: whether it has nothing in its hands.
            in_trouble: whether the database is not to be had.
        """
        if self.hung and in_trouble:
            # The thread that is left behind may hold the very lock that this one waits for.
            return True
        return idle or (self._stopped_at is not None and time.monotonic() - self._stopped_at > self._grace)
