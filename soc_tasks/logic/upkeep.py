"""What has to be looked at from time to time: outboxes, iterations whose task was purged or lost, what is old."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from soc_tasks.backends import get_backend
from soc_tasks.errors import EnqueueError, TaskAlreadyExistsError
from soc_tasks.logic.runs import enqueue_slice
from soc_tasks.state import get_state

logger = logging.getLogger("soc_tasks")

#: A running shard without progress for so long is looked at.
STUCK_AFTER: Final = timedelta(minutes=15)
#: How many shards one call looks after.
STUCK_AT_ONCE: Final = 100


def look_after() -> tuple[int, int]:
    """Hand on what waits in outboxes, queue stuck iterations anew, forget what is old.

    Returns:
        How many tasks were handed on, and how many shards queued anew.
    """
    # First, because it raises where the database is away: the relay of outboxes only logs that.
    stuck = reissue_stuck()
    handed_on = get_backend().relay()
    get_state().sweep()
    return handed_on, stuck


def reissue_stuck() -> int:
    """Enqueue the slices of running shards anew whose task is gone; return how many there were.

    Looked at are those without progress for 15 minutes. Step, epoch and name stay: where the task still waits (for a
    slow queue, or for its next attempt), its name is taken and nothing is done. A queue that remembers names of tasks
    that are gone gets a new one. Failed shards wait for `resume`.
    """
    state, count = get_state(), 0
    shards = state.touch_stuck_shards(state.now() - STUCK_AFTER, STUCK_AT_ONCE)
    for shard in shards:
        iteration = state.get_iteration(shard.iteration)
        if iteration is None:
            continue
        try:
            enqueue_slice(iteration, shard, again=True)
        except TaskAlreadyExistsError:
            continue
        except EnqueueError:
            # One that cannot be queued (its queue is gone from the settings) must not hold up the others.
            logger.exception("shard %d of iteration %s is stuck, and cannot be queued anew", shard.index, iteration.id)
            continue
        logger.warning("shard %d of iteration %s was stuck; its task is queued anew", shard.index, iteration.id)
        count += 1
    return count
