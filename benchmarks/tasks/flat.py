"""What a poll that finds nothing costs, and a claim of ten, with ever more tasks in the table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.contenders.on_soc_tasks import CHUNK, SocTasks

#: Tasks of a claim.
CLAIM = 10


def clock(work: Callable[[], object]) -> float:
    """Return the microseconds that it takes."""
    begin = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - begin)


def measure(contender: SocTasks, options: dict[str, Any]) -> dict[str, float]:
    """Return medians with 10, with a hundredth of `most` and with `most` tasks in the table."""
    sizes = {"ten": 10, "hundredth": options["most"] // 100, "all": options["most"]}
    figures: dict[str, float] = {}
    empty()
    for what, countdown in (("poll", 86_400.0), ("claim", 0.0)):
        grown = 0
        for name, size in sizes.items():
            add(max(0, size - grown), countdown)
            grown = max(grown, size)
            analyze()
            figures[f"{what} {name}"] = (poll if what == "poll" else claim)(options["times"])
        empty()
    return figures


def add(count: int, countdown: float) -> None:
    """Add tasks that are due then."""
    from soc_tasks import startTasks

    for start in range(0, count, CHUNK):
        startTasks([{"url": "noop", "countdown": countdown}] * min(CHUNK, count - start))


def analyze() -> None:
    """Let the database look at them, as it does by itself in time."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def empty() -> None:
    """Remove all tasks, with all traces that a DELETE would leave in the table."""
    from django.core.management.color import no_style
    from django.db import connection

    from soc_tasks.engine.store.rows import TASKS

    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), [TASKS]))


def poll(times: int) -> float:
    """Return what it takes to ask for tasks where none is due, and when one will be."""
    from soc_tasks.engine.store import get_store

    store = get_store("default")
    worker = store.join("benchmark", 1, 1)

    def look() -> None:
        if store.exchange(worker, [], CLAIM):
            raise RuntimeError("a task was due that is not due")
        store.next_due()

    found = statistics.median(clock(look) for _ in range(times))
    store.leave(worker)
    return found


def claim(times: int) -> float:
    """Return what it takes to claim tasks; they are given back each time, unmeasured."""
    from soc_tasks.engine.store import get_store
    from soc_tasks.engine.verdicts import Outcome, Verdict

    store = get_store("default")
    worker = store.join("benchmark", 1, 1)
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        leased = store.exchange(worker, [], CLAIM)
        spent.append(1e6 * (time.perf_counter() - begin))
        if len(leased) != CLAIM:
            raise RuntimeError(f"{len(leased)} tasks were claimed instead of {CLAIM}")
        store.exchange(worker, [Verdict(each, Outcome.RETURNED) for each in leased], 0)
    store.leave(worker)
    return statistics.median(spent)
