"""Calls with arguments: how fast they are handed over while nobody runs them, what that takes, how fast they run."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import marks
from benchmarks.contenders.base import Contender
from benchmarks.contenders.work import arguments
from benchmarks.processes import running
from benchmarks.tasks.enqueue import WARM


def measure(contender: Contender, options: dict[str, Any]) -> dict[str, float]:
    """Return calls a second, deferred and run, and the caller's processor time for each; of ours, startTask's too."""
    count = options["tasks"]
    calls = [arguments(number) for number in range(count + WARM)]
    with contender.serving():
        contender.hold()
        for call in calls[:WARM]:
            contender.call(*call)
        processor, begin = time.process_time(), time.perf_counter()
        for call in calls[WARM:]:
            contender.call(*call)
        figures = {"defer": count / (time.perf_counter() - begin)}
        figures["microseconds"] = (time.process_time() - processor) / count * 1e6
        with running(*contender.commands()):
            contender.release()
            seen = marks.wait_for(count + WARM)
    figures["run"] = (count + WARM) / (seen.last - seen.first)
    return figures | (compare(count) if contender.ours else {})


def compare(count: int) -> dict[str, float]:
    """Return what defer costs, in turns with startTask: processor time of each in microseconds."""
    from benchmarks.contenders.work import noop
    from soc_tasks import defer, startTask

    spent = {"defer": 0.0, "start": 0.0}
    part = max(1, count // 20)
    for _ in range(10):
        calls = [arguments(number) for number in range(part)]
        begin = time.process_time()
        for call in calls:
            startTask("noop", {"number": call[0], "address": call[1]})
        middle = time.process_time()
        for call in calls:
            defer(noop, *call)
        spent["start"] += middle - begin
        spent["defer"] += time.process_time() - middle
    return {f"compared {name}": seconds / part / 10 * 1e6 for name, seconds in spent.items()}
