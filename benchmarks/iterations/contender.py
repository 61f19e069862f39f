"""Measures one contender: `python -m benchmarks.iterations.contender NAME ROWS`; prints JSON."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import django
from django.core.management import call_command

from benchmarks.processes import python, read_processor, running

#: Rows before the clock runs: connected, everything loaded.
WARM = 50

Figures = dict[str, float]


def fill(count: int) -> None:
    """Make the rows anew, and let the database look at them."""
    from django.db import connection

    from benchmarks.models import Marker, Row

    Row.objects.all().delete()
    Marker.objects.all().delete()
    Row.objects.bulk_create((Row(pk=number) for number in range(1, count + 1)), batch_size=1000)
    Marker.objects.create(pk=1)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def run_queue(shards: int) -> None:
    """Run what is queued, in this process."""
    from soc_tasks.engine.worker import Worker

    Worker(threads=max(1, shards)).run_until_empty()


def now() -> tuple[float, float]:
    """Return the time, and the processor time of this process."""
    return time.perf_counter(), time.process_time()


def make_figures(count: int, begin: tuple[float, float], end: tuple[float, float]) -> Figures:
    """Return rows a second, and microseconds of processor time for each."""
    return {"rate": count / (end[0] - begin[0]), "microseconds": (end[1] - begin[1]) / count * 1e6}


def measure_loop(count: int, work: Callable[[], Any]) -> Figures:
    """Return the figures of a loop in this thread."""
    fill(WARM)
    work()
    fill(count)
    begin = now()
    work()
    return make_figures(count, begin, now())


def measure_queued(count: int, start: Callable[[], Any], shards: int) -> Figures:
    """Return the figures from the beginning of the first task to the end of the last one."""
    from soc_tasks.signals import task_finished, task_started

    moments: list[tuple[float, float]] = []

    def note(**_: Any) -> None:
        moments.append(now())

    fill(WARM)
    start()
    run_queue(shards)
    fill(count)
    start()
    task_started.connect(note)
    task_finished.connect(note)
    run_queue(shards)
    return make_figures(count, min(moments), max(moments))


def measure_served(count: int, start: Callable[[], Any], processes: int) -> Figures:
    """Return the figures of an iteration that worker processes do, from its start to its end."""
    with running(
        python("-W", "ignore", "-m", "django", "tasks", "-v", "0", "run", "--processes", str(processes))
    ) as ids:
        fill(WARM)
        follow(start())
        fill(count)
        begin = time.perf_counter(), read_processor(ids)
        follow(start())
        return make_figures(count, begin, (time.perf_counter(), read_processor(ids)))


def follow(handle: Any) -> None:
    """Return when an iteration has ended."""
    from soc_tasks import Iteration

    while True:
        # Its start has to run first.
        with suppress(Iteration.DoesNotExist):
            if Iteration.get(handle.iteration).status == "succeeded":
                return
        time.sleep(0.002)


def measure(name: str, count: int) -> Figures:
    """Return the figures of a contender."""
    from benchmarks.iterations import shapes
    from benchmarks.iterations.work import BATCH, PROCESSES, SHARDS, do, finish
    from benchmarks.models import Row

    if name == "bare":
        return measure_loop(count, lambda: shapes.work_on_bare(Row.objects.all()))
    if name == "transactions":
        return measure_loop(count, shapes.work_on_batches)
    if name == "maintenance":
        from benchmarks.iterations import maintenance

        return measure_loop(count, maintenance.run)

    from soc_tasks import defer_iteration_with_finalize, startTask, startTasks

    def start_djangae() -> None:
        rows = Row.objects.count()
        bounds = [1 + rows * number // SHARDS for number in range(SHARDS + 1)]
        ranges = itertools.pairwise(bounds)
        startTasks([{"url": "djangae", "context": {"start": start, "end": end}} for start, end in ranges])

    def start_deferred() -> None:
        options = {"_shards": SHARDS, "_batch_size": BATCH, "_atomic": name == "deferred-atomic"}
        defer_iteration_with_finalize(Row.objects.all(), do, finish, **options)

    starts: dict[str, Callable[[], Any]] = {
        "leased": lambda: startTask("leased"),
        "atomic": lambda: startTask("atomic"),
        "deferred": start_deferred,
        "deferred-atomic": start_deferred,
        "djangae": start_djangae,
        "melange": lambda: startTask("melange", {"start": 0}),
    }
    if PROCESSES > 1:
        return measure_served(count, starts[name], PROCESSES)
    return measure_queued(count, starts[name], SHARDS)


def measure_series(count: int) -> dict[str, Any]:
    """Return when each batch of 1,000 came, and the memory: of an atomic iteration of ours over so many rows."""
    from benchmarks.iterations import series
    from soc_tasks import startTask

    fill(count)
    startTask("noted")
    run_queue(1)
    return {"moments": [moment - series.moments[0] for moment in series.moments], "memory": series.memory}


def measure_turns(count: int) -> dict[str, Any]:
    """Return what each batch took: of an atomic iteration of ours, and of the same transactions in turns with it."""
    from benchmarks.iterations import turns
    from soc_tasks import startTask

    fill(WARM)
    startTask("atomic")
    run_queue(1)
    fill(count)
    turns.begin()
    startTask("atomic")
    run_queue(1)
    turns.end()
    return {"ours": turns.ours, "theirs": turns.theirs}


def main() -> None:
    """Measure what the arguments say."""
    name, count = sys.argv[1], int(sys.argv[2])
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.iterations.settings"
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
    special = {"series": measure_series, "turns": measure_turns}
    print(json.dumps(special[name](count) if name in special else measure(name, count)))


if __name__ == "__main__":
    main()
