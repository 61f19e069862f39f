"""The embedded backend with faults: tasks come twice or more often, late, and out of order.

The environment says which: `doubled` is the part of the tasks that has a copy, `copies` how often each of those comes,
`delayed` the part that comes up to `longest` seconds late; every second copy is late.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import uuid
from datetime import UTC, datetime, timedelta

from soc_tasks.backends.embedded import EmbeddedBackend

FAULTS = {
    "doubled": 0.0,
    "copies": 2,
    "delayed": 0.0,
    "longest": 2.0,
    **json.loads(os.environ["SOC_TASKS_CHAOS_FAULTS"]),
}

# Each process draws from a sequence of its own, so that a restart does not repeat the same faults.
_random = random.Random(f"{os.environ.get('SOC_TASKS_CHAOS_SEED')}-{os.getpid()}")


class FaultyBackend(EmbeddedBackend):
    """What is doubled commits with the caller's transaction, as the task itself does."""

    def enqueue(self, tasks, using):
        super().enqueue([faulty for task in tasks for faulty in _spoil(task)], using)


def _spoil(task):
    yield _late(task) if _random.random() < FAULTS["delayed"] else task
    if _random.random() < FAULTS["doubled"]:
        for _ in range(FAULTS["copies"] - 1):
            # A copy has the same start id, slice and context, as a redelivery of the service has.
            copy = dataclasses.replace(task, name=uuid.uuid4().hex)
            yield _late(copy) if _random.random() < 0.5 else copy


def _late(task):
    now = datetime.now(UTC)
    delay = timedelta(seconds=_random.uniform(0, FAULTS["longest"]))
    return dataclasses.replace(task, eta=max(now, task.eta or now) + delay)
