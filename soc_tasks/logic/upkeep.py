"""What has to be looked at from time to time: outboxes, iterations whose task was purged or lost, what is old."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from soc_tasks.backends import get_backend
from soc_tasks.errors import BackendUnavailableError, EnqueueError
from soc_tasks.logic.runs import reissue_slice
from soc_tasks.state import get_state
from soc_tasks.state.base import ShardBusyError

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

    Looked at are those without progress for 15 minutes. Where the task still waits (for a slow queue, behind a pause or
    a throttle, for its next attempt) nothing is done: step, epoch and name stay, and its name is taken. A queue that
    remembers names of tasks that are gone is asked whether it has the task, and gets a new name if not: a copy beside
    each task that waits would have all its attempts, and there would be one more every 15 minutes. Failed shards wait
    for `resume`.
    """
    state, count = get_state(), 0
    shards = state.touch_stuck_shards(state.now() - STUCK_AFTER, STUCK_AT_ONCE)
    for shard in shards:
        iteration = state.get_iteration(shard.iteration)
        if iteration is None:
            continue
        try:
            if not reissue_slice(iteration, shard):
                continue
        except ShardBusyError:
            # It is at work after all.
            continue
        except BackendUnavailableError:
            # The others would wait for it in vain, too. They are looked at again as late as this one.
            logger.exception("the queue does not tell whether it has the tasks of stuck shards, or takes none")
            break
        except EnqueueError:
            # One that cannot be queued (its queue is gone from the settings) must not hold up the others.
            logger.exception("shard %d of iteration %s is stuck, and cannot be queued anew", shard.index, iteration.id)
            continue
        logger.warning("shard %d of iteration %s was stuck; its task is queued anew", shard.index, iteration.id)
        count += 1
    return count
