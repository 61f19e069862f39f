"""What the contenders share: each module `on_*.py` measures one, in a process and an environment of its own.

A contender prints its figures as JSON. It defers first, while nobody runs the calls; then the workers are started, and
the run is timed by the marks that the calls leave, from the first to the last.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import marks
from benchmarks.deferred.work import arguments

ROOT = Path(__file__).resolve().parents[2]
#: Calls before the clock runs: connected, everything loaded.
WARM = 50

Figures = dict[str, float]


def measure_deferring(count: int, defer: Callable[[int, str], object]) -> Figures:
    """Return calls a second that `defer` hands over, and the processor time of each in this process."""
    calls = [arguments(number) for number in range(count)]
    for call in calls[:WARM]:
        defer(*call)
    processor, begin = time.process_time(), time.perf_counter()
    for call in calls:
        defer(*call)
    rate = count / (time.perf_counter() - begin)
    return {"defer": rate, "microseconds": (time.process_time() - processor) / count * 1e6}


def measure_run(count: int, *commands: list[str]) -> Figures:
    """Return calls a second from the first to the last, run by processes of `commands`."""
    with running(*commands):
        return {"run": (count + WARM) / marks.wait_for(count + WARM)}


@contextmanager
def running(*commands: list[str]) -> Iterator[None]:
    """Have processes run for as long as the block lasts."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            errors = None if "SOC_TASKS_BENCH_LOUD" in os.environ else subprocess.DEVNULL
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def python(*arguments: str) -> list[str]:
    """Return a command of this environment's Python."""
    return [sys.executable, *arguments]


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def wait_for_port(port: int, limit: float = 30.0) -> None:
    """Return when something listens on a port."""
    end = time.monotonic() + limit
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


def set_up_django(settings: str, *apps: str) -> None:
    """Set Django up on a new database, with tables."""
    os.environ["DJANGO_SETTINGS_MODULE"] = settings
    os.environ["SOC_TASKS_BENCH_APPS"] = " ".join(apps)
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)


def main() -> None:
    """Measure the contender that the first argument names, with as many calls as the second says."""
    name, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as folder:
        os.environ["SOC_TASKS_BENCH_FOLDER"] = folder
        os.environ["SOC_TASKS_BENCH_DATABASE"] = str(Path(folder) / "bench.sqlite3")
        os.environ["SOC_TASKS_BENCH_MARKS"] = str(Path(folder) / "marks")
        marks.create(Path(folder) / "marks")
        figures = importlib.import_module(f"benchmarks.deferred.{name}").measure(count)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
