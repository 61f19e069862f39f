"""`python -m benchmarks enqueue drain latency both flat memory`: tasks that do nothing, beside other queues."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.bare import measure_machine
from benchmarks.contenders.catalog import BY_KEY
from benchmarks.contenders.rounds import take_rounds
from benchmarks.tasks import results, tables
from benchmarks.tasks.page import write_page
from benchmarks.tasks.parts import PARTS


def make_parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure tasks that do nothing, beside other queues, in rounds that measure each once.",
        epilog=f"Contenders: {', '.join(BY_KEY)}.",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks in a round; slow peers get a part of them")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--only", nargs="+", choices=list(BY_KEY), metavar="CONTENDER", help="who is measured")
    parser.add_argument("--seconds", type=float, default=5.0, help="both: how long; latency: 4 times that at most")
    parser.add_argument("--samples", type=int, default=100, help="latency: single tasks (default: 100)")
    parser.add_argument("--gap", type=float, default=0.3, help="latency: most seconds between them (default: 0.3)")
    parser.add_argument("--idle", type=float, default=10.0, help="latency: seconds of idleness (default: 10)")
    parser.add_argument("--most", type=int, default=1_000_000, help="flat, memory: tasks (default: 1,000,000)")
    parser.add_argument("--times", type=int, default=200, help="flat: how often each is done (default: 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there, each part's last ones")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write tables and pictures into it; figures beside the pictures"
    )
    parser.add_argument("--again", action="store_true", help="measure nothing: write the page from what is kept")
    return parser


def measure(name: str, options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the entry of a part."""
    part = PARTS[name]
    entries = [entry for entry in part.entries if not options.only or entry.key in options.only]
    given = {key: getattr(options, key) for key in ("tasks", "samples", "gap", "idle", "seconds", "most", "times")}
    if name == "latency":
        given["seconds"] *= 4
    before = f"{os.getloadavg()[0]:.1f}"
    request = measure_machine(part.busy)
    rounds, left_out = take_rounds(min(options.rounds, part.rounds), entries, f"benchmarks.tasks.{name}", given)
    load = [before, f"{os.getloadavg()[0]:.1f}"]
    # As fast as the machine was on the average: others may have come or gone meanwhile.
    request = (request + measure_machine(part.busy)) / 2
    return results.note(rounds, left_out, given, command=command, load=load, request=request)


def main() -> None:
    """Measure, print tables, and write them down."""
    parser = make_parser()
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    path = options.json or (options.write.with_suffix("") / "figures.json" if options.write else None)
    kept = results.read(path) if path else {}
    # As it can be typed again; where the results go does not matter.
    words = " ".join(_without(sys.argv[1:], "--json", "--write"))
    for name in [] if options.again else options.parts or list(PARTS):
        kept[name] = measure(name, options, f"python -m benchmarks {words}".strip())
        print(f"\n## {PARTS[name].title}\n\n" + "\n".join(tables.make_part(name, kept[name], None)), flush=True)
        if path:
            results.write(path, kept)
    if goals := tables.make_goals(kept)[2:]:
        print("\n## Goals\n\n" + "\n".join([*tables.make_head(["", "goal", "measured", ""]), *goals]))
    if options.write:
        write_page(options.write, kept)


def _without(arguments: list[str], *names: str) -> list[str]:
    """Return arguments without these options and their values."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith(names):
            kept.append(argument)
        skip = argument in names
    return kept


if __name__ == "__main__":
    main()
