"""How fast tasks that wait are run, from the first to the last, and what that takes of the processors."""

from __future__ import annotations

from typing import Any

from benchmarks import marks
from benchmarks.contenders.base import Contender
from benchmarks.processes import read_processor, running


def fill(contender: Contender, count: int) -> None:
    """Enqueue so many tasks, by the fastest way there is."""
    if contender.bulk:
        contender.call_many(count)
    else:
        for _ in range(count):
            contender.call()


def measure(contender: Contender, options: dict[str, Any]) -> dict[str, float]:
    """Return tasks a second, and seconds of processor time for 1,000, of workers and servers together."""
    count = options["tasks"]
    with contender.serving() as servers:
        contender.hold()
        fill(contender, count)
        with running(*contender.commands()) as workers:
            contender.release()
            measured = [*workers, *servers, *options["servers"]]
            # What is taken until the first task is noticed is the start of the workers.
            marks.wait_for(1, pause=0.001)
            before, begun = read_processor(measured), marks.look().count
            seen = marks.wait_for(count)
            spent = read_processor(measured) - before
    figures = {"rate": count / (seen.last - seen.first)}
    # Of few tasks most have run before the first is noticed.
    return figures | ({"processor": 1000 * spent / (count - begun)} if begun < count / 2 else {})
