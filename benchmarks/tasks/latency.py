"""How long a single task waits while workers have nothing else to do, and what waiting takes of a processor."""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from benchmarks import marks
from benchmarks.contenders.base import Contender
from benchmarks.processes import read_idle_processor, running

#: Tasks before the clock runs.
WARM = 20


def measure(contender: Contender, options: dict[str, Any]) -> dict[str, float]:
    """Return milliseconds from the call to the body of the task, and the percentage of a processor while idle.

    `samples` tasks, a random pause of 0.05 s to `gap` before each; fewer where that takes longer than `seconds`.
    """
    rng = random.Random(9)
    with contender.serving() as servers, running(*contender.commands()) as workers:
        measured = [*workers, *servers, *options["servers"]]
        for count in range(1, WARM + 1):
            contender.call()
            marks.wait_for(count)
        # What follows the last answer is over by then.
        time.sleep(min(2.0, options["idle"]))
        before, begin = read_idle_processor(measured), time.monotonic()
        time.sleep(options["idle"])
        idle = 100 * (read_idle_processor(measured) - before) / (time.monotonic() - begin)
        waits: list[float] = []
        end = time.monotonic() + options["seconds"]
        while len(waits) < options["samples"] and (len(waits) < 2 or time.monotonic() < end):
            time.sleep(rng.uniform(min(0.05, options["gap"]), options["gap"]))
            begin = time.monotonic()
            contender.call()
            seen = marks.wait_for(WARM + len(waits) + 1, pause=0.0005)
            waits.append(1000 * (seen.last - begin))
    cuts = statistics.quantiles(waits, n=20, method="inclusive")
    return {"p50": statistics.median(waits), "p95": cuts[18], "idle": idle, "samples": len(waits)}
