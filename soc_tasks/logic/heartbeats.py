"""Keeps the lease of a shard alive while a view works on a long batch.

A timer thread per slice, that wakes only if the slice outlives a third of the lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.state import get_state

logger = logging.getLogger("soc_tasks")


def is_alive(until: datetime | None, now: datetime) -> bool:
    """Tell whether a lease that ends at `until` stands; one that is longer than leases are is of a clock set back."""
    return until is not None and now < until <= now + timedelta(seconds=get_settings().lease_seconds + 1)


@contextmanager
def keep_lease(iteration: str, shard: int, owner: str, deadline: float) -> Iterator[None]:
    """Renew a lease every third of its time until the block ends, or the queue has given the delivery up.

    Args:
        iteration: id of the iteration.
        shard: index of the shard.
        owner: whose lease it is.
        deadline: `time.monotonic()` after which a batch that hangs must not keep the shard.
    """
    lease = get_settings().lease_seconds
    ended = threading.Event()
    # A timer, not a thread at once: most slices end before the first renewal is due.
    timer = threading.Timer(lease / 3, _renew, (iteration, shard, owner, lease, deadline, ended))
    timer.name = f"soc_tasks-lease-{iteration[:8]}"
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        ended.set()
        timer.cancel()


def _renew(iteration: str, shard: int, owner: str, lease: float, deadline: float, ended: threading.Event) -> None:
    state = get_state()
    try:
        while not ended.is_set() and time.monotonic() < deadline:
            try:
                if not state.renew_lease(iteration, shard, owner, state.now() + timedelta(seconds=lease)):
                    return
            except Error:
                # The lease may end then; the fence decides, this only saves work.
                logger.warning("could not renew the lease of shard %d of %s", shard, iteration, exc_info=True)
            ended.wait(lease / 3)
    finally:
        connections.close_all()
