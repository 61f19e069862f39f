"""soc_tasks: the embedded engine on SQLite, and startTask with the same values for comparison."""

from __future__ import annotations

import time

from benchmarks.deferred.contender import Figures, measure_deferring, measure_run, python, set_up_django
from benchmarks.deferred.work import arguments, noop


def measure(count: int) -> Figures:
    """Return the rates."""
    set_up_django("benchmarks.settings")
    from soc_tasks import defer

    figures = measure_deferring(count, lambda number, address: defer(noop, number, address))
    command = python("-m", "django", "tasks", "-v", "0", "run", "--processes", "2", "--threads", "2")
    figures |= measure_run(count, command)
    return figures | compare(count)


def compare(count: int) -> Figures:
    """Return what defer costs, in turns with startTask: processor time of each in microseconds."""
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
