"""`make bench`: rates of enqueuing, draining and iterating, with the raw database and huey beside them.

Every figure stands with its ratio to the yardstick of the same run: machines differ, and the same machine does from one
minute to the next. Each round measures everything once; the median is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Result = dict[str, float]


def timed(count: int, work: Callable[[], object]) -> float:
    """Return how many of `count` things `work` does in a second."""
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def measure_raw(folder: Path, count: int) -> float:
    """Return one-row commits a second of sqlite3 itself, in WAL mode with synchronous=NORMAL."""
    connection = sqlite3.connect(folder / "raw.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, body BLOB)")
    body = b"x" * 200

    def work() -> None:
        for _ in range(count):
            connection.execute("INSERT INTO task (body) VALUES (?)", (body,))

    try:
        return timed(count, work)
    finally:
        connection.close()


def drain(count: int, *command: str) -> float:
    """Return tasks a second from the first to the last, run by worker processes of `command`."""
    from benchmarks import marks

    worker = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        return count / marks.wait_for(count)
    finally:
        worker.terminate()
        worker.wait(30)


def measure_ours(count: int) -> Result:
    """Return the rates of soc_tasks."""
    from django.db import transaction

    from benchmarks.models import Row
    from soc_tasks import Iteration, startTask, startTasks

    result = {}

    def one_by_one() -> None:
        for _ in range(count):
            startTask("noop")

    def in_one_transaction() -> None:
        with transaction.atomic():
            one_by_one()

    result["enqueue one by one"] = timed(count, one_by_one)
    result["drain"] = drain(count, "-m", "django", "tasks", "-v", "0", "run", "--processes", "2", "--threads", "2")
    result["enqueue in a transaction"] = timed(count, in_one_transaction)
    requests = [{"url": "noop"}] * count
    result["enqueue in bulk"] = timed(count, lambda: startTasks(requests))
    run = [sys.executable, "-m", "django", "tasks", "-v", "0", "run", "--until-empty"]
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    Row.objects.bulk_create((Row() for _ in range(10 * count)), batch_size=1000)
    result["bare iterator over rows"] = timed(10 * count, lambda: [None for _ in Row.objects.iterator(2000)])
    handle = startTask("walk")
    subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    result["iteration over rows"] = Iteration.get(handle.iteration or "").rate
    return result


def measure_huey(count: int) -> Result:
    """Return the rates of huey on SQLite."""
    from benchmarks.huey_peer import noop

    def one_by_one() -> None:
        for _ in range(count):
            noop()

    result = {"huey: enqueue one by one": timed(count, one_by_one)}
    command = ("-m", "huey.bin.huey_consumer", "benchmarks.huey_peer.huey", "-k", "process", "-w", "2", "-q", "-n")
    result["huey: drain"] = drain(count, *command)
    return result


def run_round(count: int) -> Result:
    """Measure everything once, in a fresh folder and a process of its own."""
    from benchmarks import marks

    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as name:
        folder = Path(name)
        os.environ["SOC_TASKS_BENCH_DATABASE"] = str(folder / "bench.sqlite3")
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"

        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        result = {"raw sqlite3 commits": measure_raw(folder, count)}
        for measure, file in ((measure_ours, "ours"), (measure_huey, "huey")):
            if measure is measure_huey and importlib.util.find_spec("huey") is None:
                continue
            os.environ["SOC_TASKS_BENCH_MARKS"] = str(folder / file)
            marks.create(folder / file)
            marks.forget()
            result |= measure(count)
    return result


YARDSTICKS = {
    "enqueue one by one": "raw sqlite3 commits",
    "enqueue in a transaction": "raw sqlite3 commits",
    "enqueue in bulk": "raw sqlite3 commits",
    "drain": "huey: drain",
    "iteration over rows": "bare iterator over rows",
}


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks in a round (default: 20,000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        for name, rate in run_round(options.tasks).items():
            print(f"{name}={rate}")
        return
    rounds: list[Result] = []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        command = [sys.executable, "-m", "benchmarks", "--one", "--tasks", str(options.tasks)]
        output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        rounds.append({name: float(rate) for name, _, rate in (line.partition("=") for line in output.splitlines())})
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, {options.tasks} tasks, median of rounds")
    for name in rounds[0]:
        rates = [result[name] for result in rounds]
        yardstick = YARDSTICKS.get(name, "")
        ratio = ""
        if yardstick in rounds[0]:
            ratio = f"{statistics.median(r[name] / r[yardstick] for r in rounds):8.2f} x {yardstick}"
        print(f"{name:28} {statistics.median(rates):12,.0f}/s  [{min(rates):,.0f} - {max(rates):,.0f}] {ratio}")


if __name__ == "__main__":
    main()
