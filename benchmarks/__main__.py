"""`make bench`, `python -m benchmarks [PART…] [options]`: measures parts by name, beside peers.

`python -m benchmarks PART --help` tells the options of a part. Those given are passed on to all parts that are named;
where none is, to the first six, which have them in common. Without any argument everything runs, with its defaults.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import ROOT, python
from benchmarks.tasks.parts import PARTS

#: What is not in `benchmarks.tasks`: each has a module and options of its own.
OTHERS = {
    "deferred": "deferred calls beside other queues, and their arguments beside pickle",
    "iterations": "rows a second beside other ways to go over rows, and the cost of batches",
    "steps": "what each step of a task costs, beside a request that does nothing",
    "cloud": "tasks created on Google's service, beside the official client",
    "datastore": "kinds read and written on Datastore's emulators, beside the official client",
    "console": "the pages of the console over a million tasks",
}


def tell() -> str:
    """Return what there is."""
    lines = [f"  {name:12}{part.brief}" for name, part in PARTS.items()]
    lines += [f"  {name:12}{what}" for name, what in OTHERS.items()]
    return "\n".join([str(__doc__), "Parts:", *lines])


def main() -> int:
    """Run the parts that are named, or all."""
    arguments = sys.argv[1:]
    # Parts stand before the options.
    first = next((place for place, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    named, options = arguments[:first], arguments[first:]
    if not named and {"-h", "--help"} & set(options):
        print(tell())
        return 0
    if unknown := [name for name in named if name not in PARTS and name not in OTHERS]:
        print(f"There is no part {', '.join(unknown)}.\n\n{tell()}", file=sys.stderr)
        return 2
    named = named or (list(PARTS) if options else [*PARTS, *OTHERS])
    runs = [("tasks", [name for name in named if name in PARTS])]
    runs = [run for run in runs if run[1]] + [(name, []) for name in named if name in OTHERS]
    status = 0
    for module, parts in runs:
        status = subprocess.run(
            python("-m", f"benchmarks.{module}", *parts, *options), cwd=ROOT, check=False
        ).returncode
        if status:
            print(f"benchmarks.{module} ended with {status}", file=sys.stderr)
            break
    return status


if __name__ == "__main__":
    sys.exit(main())
