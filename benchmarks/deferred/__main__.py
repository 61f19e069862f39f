"""`python -m benchmarks.deferred`: deferred calls on SQLite beside other queues, and their arguments beside pickle.

Each round measures every contender once, one after the other; medians are printed, with ratios of the same round.
Peers live in virtual environments of their own (`make bench-peers`); one that is not there is left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.deferred.contender import ROOT, Figures

Round = dict[str, Figures]


class Contender(NamedTuple):
    """Who is measured: by which module, in which environment, and what it does not promise."""

    title: str
    module: str
    environment: str
    caveat: str


OURS = "soc_tasks"
CONTENDERS = (
    Contender(
        OURS,
        "on_soc_tasks",
        "",
        "At least once, each call signed. SQLite at synchronous=NORMAL may lose its last commits when the machine "
        "loses power; that holds for all here that are on SQLite.",
    ),
    Contender(
        "Huey, SQLite",
        "on_huey",
        "",
        "At most once: it takes a task away before it runs it, and what ran in a process that dies is lost. No retry "
        "unless asked for. Its default, synchronous=FULL, is slower. Pickle, unsigned.",
    ),
    Contender(
        "Celery, Redis",
        "on_celery",
        ".venv-peers",
        "Acknowledges before it runs: what ran in a process that is killed is lost. Redis by default writes to the "
        "disk from time to time: what came since is lost with its process. No part of a transaction of the database.",
    ),
    Contender(
        "django-q2, ORM",
        "on_django_q",
        ".venv-peers",
        "At least once. Measured at its best settings: 50 at a time, no results kept. Its workers get calls from one "
        "process; pickle, signed.",
    ),
    Contender(
        "django-tasks-db",
        "on_django_tasks",
        ".venv-peers",
        "No retries, and what ran in a process that dies stays as running for ever. Keeps every result. JSON: neither "
        "dates nor decimals nor instances as arguments.",
    ),
    Contender(
        "emulator, gunicorn",
        "on_emulator",
        ".venv-emulator",
        "Not durable: tasks are in the memory of the emulator. One task at a time for each queue, as pickle, unsigned.",
    ),
)


def find_python(contender: Contender) -> Path | None:
    """Return the interpreter of a contender's environment, or None where it is not installed."""
    if not contender.environment:
        return Path(sys.executable)
    python = ROOT / contender.environment / "bin" / "python"
    return python if python.exists() else None


def measure(contender: Contender, python: Path, count: int) -> Figures | None:
    """Return the figures of a contender, or None where it cannot be measured here."""
    command = [str(python), "-W", "ignore", "-m", "benchmarks.deferred.contender", contender.module, str(count)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{contender.title}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def take_rounds(rounds: int, count: int, wanted: list[str]) -> list[Round]:
    """Measure everybody in each round; whoever cannot be measured is left out."""
    contenders = {c: find_python(c) for c in CONTENDERS if not wanted or c.module.removeprefix("on_") in wanted}
    taken: list[Round] = []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        taken.append({})
        for contender, python in contenders.items():
            figures = measure(contender, python, count) if python is not None else None
            if figures is not None:
                taken[-1][contender.title] = figures
    return taken


def show(rounds: list[Round], count: int) -> None:
    """Print the table, and what each does not promise."""
    print(f"\n{count:,} calls, median of {len(rounds)} rounds [slowest - fastest]; x: ours is that many times faster\n")
    for key, title in (("defer", "defer, one by one"), ("run", "run, from first to last")):
        print(title)
        for name in (c.title for c in CONTENDERS):
            rates = [each[name][key] for each in rounds if name in each]
            if not rates:
                continue
            ratios = [each[OURS][key] / each[name][key] for each in rounds if name in each and OURS in each]
            ratio = f"{statistics.median(ratios):7.2f} x" if ratios else ""
            spent = ""
            if key == "defer":
                microseconds = statistics.median(each[name]["microseconds"] for each in rounds if name in each)
                spent = f"{microseconds:8,.0f} us of the caller's processor"
            rate = f"{statistics.median(rates):10,.0f}/s  [{min(rates):,.0f} - {max(rates):,.0f}]"
            print(f"  {name:20}{rate:36}{ratio}{spent}")
    ours = [each[OURS] for each in rounds if OURS in each]
    if ours:
        times = [statistics.median(each[f"compared {name}"] for each in ours) for name in ("defer", "start")]
        ratio = statistics.median(each["compared defer"] / each["compared start"] for each in ours)
        print(f"\ndefer beside startTask, in turns: {times[0]:,.0f} us and {times[1]:,.0f} us, {ratio:.2f} x\n")
    for contender in CONTENDERS:
        if not any(contender.title in each for each in rounds):
            print(f"{contender.title}: left out, not installed (make bench-peers)")
        elif contender.caveat:
            print(f"{contender.title}: {contender.caveat}")


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deferred")
    parser.add_argument("--tasks", type=int, default=5_000, help="calls in a round (default: 5,000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--only", nargs="*", default=[], help="contenders, as in soc_tasks huey celery; or: arguments")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    if options.only != ["arguments"]:
        show(take_rounds(options.rounds, options.tasks, options.only), options.tasks)
    if not options.only or "arguments" in options.only:
        command = [sys.executable, "-m", "benchmarks.deferred.arguments", "--rounds", str(options.rounds)]
        sys.stdout.flush()
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
