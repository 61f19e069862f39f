"""`python -m benchmarks.iterations`: rows a second beside other ways to go over rows, and the cost of batches.

Each round measures every contender once, one after the other, each in a process and a database of its own; medians are
printed, with ratios of the same round. django-maintenance-tasks lives in its own environment (`make bench-peers`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.databases import Entry, sqlite_entry
from benchmarks.iterations.plot import plot
from benchmarks.iterations.work import ROWS

ROOT = Path(__file__).resolve().parents[2]
PEER = ROOT / ".venv-maintenance" / "bin" / "python"
PEER_APPS = "django.contrib.contenttypes django.contrib.auth maintenance_tasks benchmarks"
#: Rows of the series.
SIZES = (10_000, 100_000, 1_000_000)


class Contender(NamedTuple):
    """Who goes over rows, in how many shards, what is done with them if not what the table is about, by how many."""

    name: str
    shards: int = 1
    work: str = ""
    processes: int = 1

    @property
    def title(self) -> str:
        """Return how it stands in the table."""
        work = f", `{self.work}`" if self.work else ""
        among = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{TITLES[self.name]}{f', {self.shards} shards' if self.shards > 1 else ''}{among}{work}"


TITLES = {
    "bare": "bare loop, autocommit",
    "transactions": "bare loop, a transaction for each batch",
    "leased": "@iterative_task",
    "atomic": "@iterative_task(atomic=True)",
    "deferred": "defer_iteration_with_finalize",
    "deferred-atomic": "the same, _atomic=True",
    "djangae": "djangae's shape",
    "melange": "Melange's shape",
    "maintenance": "django-maintenance-tasks",
}
ALL = [Contender(name) for name in TITLES]
CONTENDERS = {
    "nothing": [*ALL, Contender("leased", 2, processes=2), Contender("atomic", 2, processes=2)],
    "update": [*ALL, Contender("atomic", 8)],
    "wait": [
        Contender("bare"),
        *(Contender("leased", shards) for shards in (1, 4, 8)),
        *(Contender("deferred", shards) for shards in (1, 8)),
        *(Contender("djangae", shards) for shards in (1, 4, 8)),
        Contender("melange"),
        Contender("maintenance"),
    ],
    "write": [
        Contender("bare", work="save"),
        *(Contender("transactions", work=work) for work in ("save", "bulk_update", "write_back")),
        *(Contender("atomic", work=work) for work in ("save", "bulk_update", "write_back")),
    ],
}

Rates = dict[Contender, dict[str, float]]


@contextmanager
def databases(vendor: str) -> Iterator[Callable[[], Entry]]:
    """Give a function that returns the entry of a new database."""
    if vendor == "postgresql":
        from tests.servers import PostgresServer

        server = PostgresServer()
        try:
            yield lambda: server.options(server.create_database())
        finally:
            server.end()
        return
    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as folder:
        numbers = iter(range(1_000_000))

        def make() -> Entry:
            return sqlite_entry(Path(folder) / f"{next(numbers)}.sqlite3")

        yield make


def measure(contender: Contender, kind: str, rows: int, entry: Entry) -> Entry | None:
    """Return what a contender prints, or None where it cannot be measured here."""
    peer = contender.name == "maintenance"
    if peer and not PEER.exists():
        return None
    environment = {
        **os.environ,
        "SOC_TASKS_BENCH_OPTIONS": json.dumps(entry),
        "SOC_TASKS_BENCH_WORK": contender.work or kind,
        "SOC_TASKS_BENCH_SHARDS": str(contender.shards),
        "SOC_TASKS_BENCH_PROCESSES": str(contender.processes),
    }
    if peer:
        environment["SOC_TASKS_BENCH_APPS"] = PEER_APPS
    command = [str(PEER) if peer else sys.executable, "-W", "ignore", "-m", "benchmarks.iterations.contender"]
    done = subprocess.run(
        [*command, contender.name, str(rows)], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        print(f"{contender}: {done.stderr.strip()[-2000:]}", file=sys.stderr)
        return None
    found: Entry = json.loads(done.stdout.splitlines()[-1])
    return found


def take_rounds(rounds: int, kind: str, rows: int, make: Callable[[], Entry], wanted: list[str]) -> list[Rates]:
    """Measure everybody in each round."""
    taken: list[Rates] = []
    for number in range(rounds):
        print(f"{kind}: round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        taken.append({})
        for contender in CONTENDERS[kind]:
            found = measure(contender, kind, rows, make()) if not wanted or contender.name in wanted else None
            if found is not None:
                taken[-1][contender] = found
    return taken


def show(kind: str, rows: int, rounds: list[Rates]) -> None:
    """Print a table as it stands in the documents."""
    bare = CONTENDERS[kind][0]
    print(f"\n{kind}: {rows:,} rows\n\n| | rows/s | of the bare loop | processor time each | |\n|---|---|---|---|---|")
    for contender in CONTENDERS[kind]:
        rates = [each[contender]["rate"] for each in rounds if contender in each]
        if not rates:
            print(f"| {contender.title} | left out | | | |")
            continue
        spent = statistics.median(each[contender]["microseconds"] for each in rounds if contender in each)
        print(
            f"| {contender.title} | {statistics.median(rates):,.0f} [{min(rates):,.0f} - {max(rates):,.0f}] "
            f"| {compare(rounds, 'rate', contender, bare)} | {spent:,.0f} µs "
            f"| {compare(rounds, 'microseconds', contender, bare)} |"
        )
    for one, other, why in AIMS.get(kind, ()):
        if told := compare(rounds, "rate", one, other):
            print(f"{why}: {told}; by processor time {compare(rounds, 'microseconds', other, one)}")


def compare(rounds: list[Rates], figure: str, one: Contender, other: Contender) -> str:
    """Return the median ratio of two contenders within one round, or nothing."""
    both = [each[one][figure] / each[other][figure] for each in rounds if one in each and other in each]
    return f"{statistics.median(both):.2f} x [{min(both):.2f} - {max(both):.2f}]" if both else ""


AIMS = {
    "nothing": [
        (Contender("atomic"), Contender("bare"), "durable checkpoints to the bare loop, aim 0.5"),
        (Contender("leased", 2, processes=2), Contender("bare"), "in 2 processes, aim 1"),
        (Contender("atomic", 2, processes=2), Contender("bare"), "in 2 processes, atomic, aim 1"),
    ],
    "update": [
        (Contender("atomic"), Contender("bare"), "atomic to the bare autocommit loop, aim over 1"),
        (Contender("atomic"), Contender("transactions"), "atomic to the same transactions, aim 0.95"),
        (Contender("deferred-atomic"), Contender("transactions"), "deferred, atomic, to the same transactions"),
    ],
    "write": [
        (Contender("atomic", work="save"), Contender("transactions", work="save"), "save(): to the same transactions"),
        (
            Contender("atomic", work="write_back"),
            Contender("transactions", work="bulk_update"),
            "write_back to bulk_update in the same transactions, aim 10 on SQLite",
        ),
    ],
    "wait": [
        (Contender("leased", 8), Contender("leased"), "8 shards to one, aim 7"),
        (Contender("deferred", 8), Contender("deferred"), "deferred: 8 shards to one, aim 7"),
    ],
}


def show_series(make: Callable[[], Entry], sizes: list[int], picture: Path | None) -> None:
    """Measure what batches cost over ever more rows, and the memory; draw it."""
    found: dict[int, Entry] = {}
    for size in sizes:
        print(f"{size:,} rows, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        result = measure(Contender("series"), "nothing", size, make())
        if result is None or len(result["moments"]) < 2:
            continue
        found[size] = result
        moments = result["moments"]
        costs = [1000 * (after - before) for before, after in itertools.pairwise(moments)]
        tenth = max(1, len(costs) // 10)
        first, last = statistics.median(costs[:tenth]), statistics.median(costs[-tenth:])
        memory = [number / 2**20 for number in result["memory"]]
        print(
            f"| {size:,} | {statistics.median(costs):.2f} ms | {first:.2f} ms | {last:.2f} ms | {moments[-1]:.1f} s "
            f"| {memory[min(tenth, len(memory) - 1)]:.0f} MiB | {memory[-1]:.0f} MiB | {max(memory):.0f} MiB |"
        )
    if picture is not None:
        plot(found, picture)


def show_turns(make: Callable[[], Entry], rows: int) -> None:
    """Measure what the place of an atomic batch costs, beside the same transaction without one."""
    result = measure(Contender("turns", work="update"), "update", rows, make())
    if result is None:
        return
    # The last one ends the iteration, and has not as many rows as the others.
    ours, theirs = result["ours"][:-1], result["theirs"][:-1]
    ratios = sorted(other / one for one, other in zip(ours, theirs, strict=True))
    tenth = len(ratios) // 10
    print(
        f"\n{len(ratios)} batches in turns with the same transactions: {sum(theirs) / sum(ours):.3f} x in all, "
        f"{statistics.median(ratios):.3f} x [{ratios[tenth]:.2f} - {ratios[-1 - tenth]:.2f}] each; "
        f"{1000 * statistics.median(ours):.1f} ms to {1000 * statistics.median(theirs):.1f} ms"
    )


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.iterations")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the rows, for a try (default: 1)")
    parser.add_argument("--vendors", nargs="*", default=["sqlite", "postgresql"])
    parser.add_argument(
        "--kinds", nargs="*", default=list(CONTENDERS), help="of nothing update wait write turns series"
    )
    parser.add_argument("--only", nargs="*", default=[], help=f"of {' '.join(TITLES)}")
    parser.add_argument("--plot", type=Path, help="file for the picture of the series")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    for vendor in options.vendors:
        print(f"\n# {vendor}")
        with databases(vendor) as make:
            for kind in options.kinds:
                if kind == "turns":
                    show_turns(make, int(ROWS["update"] * options.scale))
                elif kind == "series":
                    picture = options.plot if vendor == options.vendors[0] else None
                    show_series(make, [int(size * options.scale) for size in SIZES], picture)
                else:
                    rows = int(ROWS[kind] * options.scale)
                    show(kind, rows, take_rounds(options.rounds, kind, rows, make, options.only))


if __name__ == "__main__":
    main()
