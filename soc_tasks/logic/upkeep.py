"""What has to be looked at from time to time: iterations whose task was purged or lost."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from soc_tasks.errors import EnqueueError, TaskAlreadyExistsError
from soc_tasks.logic.runs import enqueue_slice
from soc_tasks.state import get_state

logger = logging.getLogger("soc_tasks")

#: A running shard without progress for so long is looked at.
STUCK_AFTER: Final = timedelta(minutes=15)
#: How many shards one call looks after.
STUCK_AT_ONCE: Final = 100


def reissue_stuck() -> int:
    """Enqueue the slices of running shards anew whose task is gone; return how many there were.

    Looked at are those without progress for 15 minutes. Step, epoch and name stay: where the task still waits (for a
    slow queue, or for its next attempt), its name is taken and nothing is done. A queue that remembers names of tasks
    that are gone gets a new one. Failed shards wait for `resume`.
    """
    state, count = get_state(), 0
    with state.atomic():
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
