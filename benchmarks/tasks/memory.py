"""What the worker's processes hold while they run very many tasks."""

from __future__ import annotations

from typing import Any

from benchmarks import marks
from benchmarks.contenders.base import Contender
from benchmarks.processes import read_memory, running

#: Most points of the line, and fewest tasks between two.
POINTS, APART = 100, 20


def measure(contender: Contender, options: dict[str, Any]) -> dict[str, Any]:
    """Return MiB at 10 %, at 50 % and at the end, and as a line of (tasks, MiB); `most` tasks are run."""
    count, line = options["most"], []
    points = min(POINTS, max(1, count // APART))
    contender.call_many(count)
    with running(*contender.commands()) as workers:
        for point in range(1, points + 1):
            seen = marks.wait_for(point * count // points)
            line.append((seen.count, read_memory(workers) / 2**20))
    return {
        "begin": line[max(1, points // 10) - 1][1],
        "middle": line[max(1, points // 2) - 1][1],
        "end": line[-1][1],
        "line": line,
    }
