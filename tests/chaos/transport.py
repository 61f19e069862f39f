"""The embedded backend with faults: 5 % of the tasks come twice, and those and others late and out of order."""

from __future__ import annotations

import dataclasses
import os
import random
import uuid
from datetime import UTC, datetime, timedelta

from soc_tasks.backends.embedded import EmbeddedBackend

DOUBLED = 0.05
DELAYED = 0.05
LONGEST_DELAY = 2.0

# Each process draws from a sequence of its own, so that a restart does not repeat the same faults.
_random = random.Random(f"{os.environ.get('SOC_TASKS_CHAOS_SEED')}-{os.getpid()}")


class FaultyBackend(EmbeddedBackend):
    """What is doubled commits with the caller's transaction, as the task itself does."""

    def enqueue(self, tasks, using):
        super().enqueue([faulty for task in tasks for faulty in _spoil(task)], using)


def _spoil(task):
    yield _late(task) if _random.random() < DELAYED else task
    if _random.random() < DOUBLED:
        # The copy has the same start id, slice and context, as a redelivery of the service has.
        yield _late(dataclasses.replace(task, name=uuid.uuid4().hex))


def _late(task):
    return dataclasses.replace(task, eta=datetime.now(UTC) + timedelta(seconds=_random.uniform(0, LONGEST_DELAY)))
