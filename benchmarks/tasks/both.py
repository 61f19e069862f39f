"""Both at once: one process enqueues as fast as it can, while workers drain."""

from __future__ import annotations

import statistics
import struct
import time
from pathlib import Path
from typing import Any

from benchmarks import marks
from benchmarks.contenders.base import Contender
from benchmarks.processes import running

#: Tasks before the clock runs.
WARM = 20
#: Where SQLite counts commits in the index of its WAL, a file beside the database (WalIndexHdr.iChange).
_COMMITS_AT = 8


def count_commits(database: Path) -> int:
    """Return SQLite's own count of commits, by whomever; it wraps around at 2**32."""
    with Path(f"{database}-shm").open("rb") as index:
        index.seek(_COMMITS_AT)
        found: int = struct.unpack("=I", index.read(4))[0]
    return found


def measure(contender: Contender, options: dict[str, Any]) -> dict[str, float]:
    """Return tasks a second in and out, milliseconds of a call, and the workers' share of SQLite's commits."""
    with contender.serving(), running(*contender.commands()):
        for count in range(1, WARM + 1):
            contender.call()
            marks.wait_for(count)
        file = contender.database_file
        ran, commits = marks.look().count, count_commits(file) if file else 0
        calls: list[float] = []
        begin = before = time.perf_counter()
        while before - begin < options["seconds"]:
            contender.call()
            now = time.perf_counter()
            calls.append(now - before)
            before = now
        took = time.perf_counter() - begin
        ran = marks.look().count - ran
        figures = {"in": len(calls) / took, "out": ran / took, "most": 1000 * max(calls)}
        figures["share"] = 100 * ran / (ran + len(calls))
        figures["p99"] = 1000 * statistics.quantiles(calls, n=100, method="inclusive")[98]
        if file:
            commits = (count_commits(file) - commits) % 2**32
            figures["commits"] = 100 * max(0, commits - len(calls)) / commits
    return figures
