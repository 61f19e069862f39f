"""How fast tasks are enqueued while nobody runs them: one by one, in one transaction, in bulk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.contenders.base import Contender

#: Calls before the clock runs: connected, everything loaded.
WARM = 50


def timed(count: int, work: Callable[[], object]) -> float:
    """Return how many of `count` things `work` does in a second."""
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def measure(contender: Contender, options: dict[str, Any]) -> dict[str, float]:
    """Return tasks a second by each way that the contender has."""
    count = options["tasks"]

    def one_by_one() -> None:
        for _ in range(count):
            contender.call()

    def in_one_transaction() -> None:
        with contender.transaction():
            one_by_one()

    with contender.serving():
        contender.hold()
        for _ in range(WARM):
            contender.call()
        figures = {"one": timed(count, one_by_one)}
        if contender.transactional:
            figures["transaction"] = timed(count, in_one_transaction)
        if contender.bulk:
            figures["bulk"] = timed(count, lambda: contender.call_many(count))
    return figures
