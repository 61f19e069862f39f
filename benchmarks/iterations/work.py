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


def save(row: Any) -> None:
    """Write a row as everybody does."""
    row.value += 1
    row.save()


def wait(row: Any) -> None:
    """Wait, as for another service."""
    time.sleep(WAIT)


def _add(rows: list[Any]) -> None:
    for row in rows:
        row.value += 1


def bulk_update(rows: list[Any]) -> None:
    """Write the rows of a batch as Django does."""
    _add(rows)
    type(rows[0]).objects.bulk_update(rows, ["value"])


def write_back(rows: list[Any]) -> None:
    """Write the rows of a batch as we do."""
    from soc_tasks import write_back as write

    _add(rows)
    write(rows, ["value"])


WORKS = {"nothing": do_nothing, "update": update, "wait": wait, "save": save}
#: What is done with all rows of a batch at once.
WHOLE = {"bulk_update": bulk_update, "write_back": write_back}
#: Rows, and rows of a batch.
ROWS = {"nothing": 100_000, "update": 20_000, "wait": 3_200, "write": 20_000}
BATCHES = {"nothing": 1000, "update": 100, "wait": 100, "save": 500, "bulk_update": 500, "write_back": 500}

#: What this process measures: named by the environment, so that a site can be made of it.
KIND = os.environ.get("SOC_TASKS_BENCH_WORK", "nothing")
SHARDS = int(os.environ.get("SOC_TASKS_BENCH_SHARDS", "1"))
PROCESSES = int(os.environ.get("SOC_TASKS_BENCH_PROCESSES", "1"))
BATCH = BATCHES[KIND]
do = WORKS.get(KIND, do_nothing)


def do_all(rows: list[Any]) -> None:
    """Work on the rows of a batch."""
    if KIND in WHOLE:
        if rows:
            WHOLE[KIND](rows)
        return
    for row in rows:
        do(row)


def finish() -> None:
    """Be the finalize of a deferred iteration."""
