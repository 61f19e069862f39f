"""What has to be looked at from time to time: iterations whose task was purged or lost."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Final

from django.utils import timezone

from soc_tasks.logic.runs import enqueue_slice
from soc_tasks.state import get_state

logger = logging.getLogger("soc_tasks")

#: A running shard without progress for so long gets its task anew. Longer than any backoff that a healthy queue
#: would be in; a task too many is dropped by the fence.
STUCK_AFTER: Final = timedelta(minutes=15)
#: How many shards one call looks after.
STUCK_AT_ONCE: Final = 100


def reissue_stuck() -> int:
    """Enqueue the slices of running shards anew that had no progress for 15 minutes; return how many there were.

    Step and epoch stay, so that of two deliveries only one counts. Failed shards wait for `resume`.
    """
    state = get_state()
    with state.atomic():
        shards = state.touch_stuck_shards(timezone.now() - STUCK_AFTER, STUCK_AT_ONCE)
        for shard in shards:
            iteration = state.get_iteration(shard.iteration)
            if iteration is not None:
                logger.warning("shard %d of iteration %s is stuck; its task is queued anew", shard.index, iteration.id)
                enqueue_slice(iteration, shard)
    return len(shards)
