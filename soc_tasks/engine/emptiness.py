"""When a worker that runs until nothing is left has come to its end, and what it says while it waits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from soc_tasks.engine.caretaker import do_upkeep
from soc_tasks.engine.clock import SECOND, Clock
from soc_tasks.engine.store.base import Queues, Store

#: Seconds between two questions.
ASK: Final = 0.1
#: Seconds between lines about what is waited for.
TELL: Final = 10.0


class Emptiness:
    """Finds out whether nothing is left to do.

    Args:
        store: where tasks are.
        clock: tells when they are due.
        queues: the queues that are meant; None: all.
        tell: called with a line now and then, while only retries are waited for.
    """

    def __init__(self, store: Store, clock: Clock, queues: Queues, tell: Callable[[str], None] | None) -> None:
        self._store = store
        self._clock = clock
        self._queues = queues
        self._tell = tell
        self._ask_at = 0.0
        self._tell_at = time.monotonic() + TELL
        #: Whether upkeep was done, and nothing came of it so far.
        self.upkept = False

    def is_reached(self, now: float) -> bool:
        """Tell whether nothing is left; asked anew now and then only."""
        if now < self._ask_at:
            return False
        self._ask_at = now + ASK
        if not self._store.is_empty(self._queues):
            self._say(now)
            return False
        if self.upkept:
            self._say_what_stays()
            return True
        # What waits in an outbox is work as well.
        do_upkeep(self._store)
        self.upkept = True
        self._ask_at = 0.0
        return False

    def _say_what_stays(self) -> None:
        """Tell of tasks that only a worker of another release can run."""
        if self._tell is not None and (count := self._store.count_unknown(self._queues)):
            self._tell(f"tasks left that this site does not know, for a worker that does: {count} (see tasks list)")

    def _say(self, now: float) -> None:
        if self._tell is None or now < self._tell_at:
            return
        self._tell_at = now + TELL
        count, due = self._store.count_retries(self._queues)
        if count:
            seconds = max(0, math.ceil((due - self._clock.now()) / SECOND))
            self._tell(f"waiting for {count} tasks that will be tried again, the next in {seconds} s")
