"""What is done with each row, and over how many of them."""

from __future__ import annotations

import os
import time
from typing import Any

#: Seconds that a row's work waits, as for another service.
WAIT = 0.005


def do_nothing(row: Any) -> None:
    """Look at a row."""


def update(row: Any) -> None:
    """Write a row, one statement each."""
    type(row).objects.filter(pk=row.pk).update(value=row.value + 1)


def wait(row: Any) -> None:
    """Wait, as for another service."""
    time.sleep(WAIT)


WORKS = {"nothing": do_nothing, "update": update, "wait": wait}
#: Rows, and rows of a batch.
ROWS = {"nothing": 100_000, "update": 20_000, "wait": 3_200}
BATCHES = {"nothing": 1000, "update": 100, "wait": 100}

#: What this process measures: named by the environment, so that a site can be made of it.
KIND = os.environ.get("SOC_TASKS_BENCH_WORK", "nothing")
SHARDS = int(os.environ.get("SOC_TASKS_BENCH_SHARDS", "1"))
BATCH = BATCHES[KIND]
do = WORKS[KIND]


def finish() -> None:
    """Be the finalize of a deferred iteration."""
