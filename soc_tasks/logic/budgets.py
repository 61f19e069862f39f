"""How long one delivery of a slice works before it hands over to the next, and where it may end within a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from soc_tasks.conf import get_settings
from soc_tasks.logic.plans import Plan


@dataclass(slots=True)
class Budget:
    """When a slice hands over.

    Args:
        seconds: time that it may use.
        stopping: whether the worker wants to end.
        started: when it began (monotonic).
        deadline: when the queue gives the delivery up (monotonic).
    """

    seconds: float
    stopping: Callable[[], bool]
    started: float
    deadline: float

    @classmethod
    def for_delivery(cls, plan: Plan, deadline: float, stopping: Callable[[], bool]) -> Budget:
        """Return the budget of a delivery that must be answered by `deadline` (monotonic)."""
        now = time.monotonic()
        wanted = plan.time_limit if plan.time_limit is not None else get_settings().effective_slice_seconds
        # A tenth is kept back for the batch that is running when the time is up.
        return cls(
            seconds=min(wanted, max(0.0, 0.9 * (deadline - now))), stopping=stopping, started=now, deadline=deadline
        )

    def is_used_up(self) -> bool:
        """Tell whether the slice should hand over now."""
        return self.stopping() or time.monotonic() - self.started >= self.seconds


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a batch ended before its end.

    Args:
        done: how many of its entities are done; at least one, where the time was up.
        error: what the next one raised; None: the time was up.
    """

    done: int
    error: Exception | None = None
