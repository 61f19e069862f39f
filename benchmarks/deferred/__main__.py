"""`python -m benchmarks deferred`: deferred calls beside other queues, and their arguments beside pickle.

Each round measures every contender once, one after the other; medians are printed, with ratios of the same round.
Peers live in virtual environments of their own (`make bench-peers`); one that is not there is left out, and named.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess

from benchmarks.contenders.catalog import BY_KEY, SURVIVES, Entry
from benchmarks.contenders.rounds import Round, take_rounds
from benchmarks.processes import ROOT, python

KEYS = ("ours", "huey", "celery", "django-q", "django-tasks", "emulator")


def show(entries: list[Entry], rounds: list[Round], count: int) -> None:
    """Print the table, and what each does not promise."""
    print(f"\n{count:,} calls, median of {len(rounds)} rounds [slowest - fastest]; x: ours is that many times faster\n")
    for key, title in (("defer", "defer, one by one"), ("run", "run, from first to last")):
        print(title)
        for entry in entries:
            rates = [each[entry.key][key] for each in rounds if entry.key in each]
            if not rates:
                continue
            ratios = [each["ours"][key] / each[entry.key][key] for each in rounds if {entry.key, "ours"} <= set(each)]
            ratio = f"{statistics.median(ratios):7.2f} x" if ratios else ""
            spent = ""
            if key == "defer":
                microseconds = statistics.median(
                    each[entry.key]["microseconds"] for each in rounds if entry.key in each
                )
                spent = f"{microseconds:8,.0f} us of the caller's processor"
            rate = f"{statistics.median(rates):10,.0f}/s  [{min(rates):,.0f} - {max(rates):,.0f}]"
            print(f"  {entry.title:32}{rate:36}{ratio}{spent}")
    if ours := [each["ours"] for each in rounds if "ours" in each]:
        times = [statistics.median(each[f"compared {name}"] for each in ours) for name in ("defer", "start")]
        ratio = statistics.median(each["compared defer"] / each["compared start"] for each in ours)
        print(f"\ndefer beside startTask, in turns: {times[0]:,.0f} us and {times[1]:,.0f} us, {ratio:.2f} x\n")
    for entry in entries:
        print(f"{entry.title}: what was committed survives {SURVIVES[entry.on]}; {entry.promise}.")


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks deferred")
    parser.add_argument("--tasks", type=int, default=5_000, help="calls in a round (default: 5,000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--only", nargs="*", default=[], help=f"of {', '.join(KEYS)}; or: arguments")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    # All of them do as many, so that each is compared over the same.
    entries = [BY_KEY[key]._replace(share=1.0) for key in KEYS if not options.only or key in options.only]
    if entries:
        given = {"tasks": options.tasks}
        rounds, _ = take_rounds(options.rounds, entries, "benchmarks.deferred.deferring", given)
        show(entries, rounds, options.tasks)
    if not options.only or "arguments" in options.only:
        command = python("-m", "benchmarks.deferred.arguments", "--rounds", str(options.rounds))
        subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
