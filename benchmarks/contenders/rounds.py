"""Rounds: in each, every contender is measured once, one after the other, on servers and databases of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import marks
from benchmarks.contenders.catalog import Entry
from benchmarks.databases import Postgres, running_postgres, sqlite_entry
from benchmarks.processes import ROOT, running_redis

Figures = dict[str, Any]
#: The figures of each contender.
Round = dict[str, Figures]


class MeasureError(Exception):
    """A contender could not be measured."""


@contextmanager
def _providing(entry: Entry, folder: Path, postgres: Postgres) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Have what a contender needs; give variables of the environment, and the servers' processes."""
    if entry.on == "redis":
        with running_redis(folder) as (port, processes):
            yield {"SOC_TASKS_BENCH_REDIS": str(port)}, processes
    elif entry.on == "postgresql":
        options, processes = postgres.make_database()
        try:
            yield {"SOC_TASKS_BENCH_OPTIONS": json.dumps(options)}, processes
        finally:
            postgres.drop(options)
    else:
        synchronous = "FULL" if entry.on == "sqlite-full" else "NORMAL"
        options = sqlite_entry(folder / "bench.sqlite3", synchronous)
        yield {"SOC_TASKS_BENCH_OPTIONS": json.dumps(options)}, []


def measure(entry: Entry, module: str, options: Mapping[str, Any], postgres: Postgres) -> Figures:
    """Return the figures of a contender, by a module that measures, or several with commas.

    Raises:
        MeasureError: it failed; what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as name:
        folder = Path(name)
        marks.create(folder / "marks")
        with _providing(entry, folder, postgres) as (provided, servers):
            environment = {
                **os.environ,
                "SOC_TASKS_BENCH_FOLDER": name,
                "SOC_TASKS_BENCH_MARKS": str(folder / "marks"),
                "SOC_TASKS_BENCH_VARIANT": entry.variant,
                **dict(entry.settings),
                **provided,
            }
            given = json.dumps({**options, "servers": servers})
            command = [str(entry.python), "-W", "ignore", "-m", "benchmarks.contenders", entry.module, module, given]
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                check=False,
                capture_output=True,
                text=True,
            )
    if "SOC_TASKS_BENCH_LOUD" in os.environ:
        print(done.stderr, file=sys.stderr)
    if done.returncode:
        raise MeasureError((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def take_rounds(
    rounds: int, entries: Sequence[Entry], module: str, options: Mapping[str, Any]
) -> tuple[list[Round], dict[str, str]]:
    """Measure everybody in each round; return the rounds, and by key why others were left out.

    Who fails once is left out from then on. `options["tasks"]` is multiplied by the share of each.
    """
    left_out = {entry.key: missing for entry in entries if (missing := entry.find_missing())}
    taken: list[Round] = []
    with running_postgres() as postgres:
        for number in range(rounds):
            print(f"{module}: round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
            taken.append({})
            for entry in entries:
                if entry.key in left_out:
                    continue
                own = {**options, "tasks": max(1, int(options["tasks"] * entry.share))}
                try:
                    taken[-1][entry.key] = measure(entry, module, own, postgres)
                except MeasureError as error:
                    left_out[entry.key] = str(error)
    for key, reason in left_out.items():
        print(f"{key}: left out, {reason}", file=sys.stderr)
    return taken, left_out
