"""Encode and decode typical arguments, beside pickle: time and bytes.

*text* is typed JSON alone, which is what pickle's bytes are compared with; *sealed* is what `defer` does besides: it
signs the text, and packs it where that is shorter, and the view checks that.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.contenders.base import set_up_django
from benchmarks.contenders.work import noop

#: For how long each thing is measured in a round, in seconds of processor time.
SPAN = 0.1


def make_cases() -> dict[str, tuple[Any, ...]]:
    """Return arguments by what they are."""
    from benchmarks.models import Row

    since = datetime(2026, 5, 17, 9, 30, 12, 345678, UTC)
    report = {
        "id": 7,
        "title": "Quarter",
        "total": Decimal("1234.56"),
        "from": since,
        "until": since + timedelta(days=91),
        "lines": [
            {"name": f"line {n}", "price": Decimal(n) / 4, "at": since + timedelta(hours=n), "paid": n % 2 == 0}
            for n in range(10)
        ],
    }
    words = "It is a truth universally acknowledged, that a single man must be in want of a task queue. "
    return {
        "nothing": (),
        "int and text": (7, "student-7@example.org"),
        "dict of a report": (report,),
        "model instance": (Row.from_db("default", ["id", "value"], [7, 1]),),
        "list of 1,000 ints": (list(range(1000)),),
        "100 kB of text": ("".join(f"{n} {words}" for n in range(1100))[:100_000],),
    }


def clock(work: Callable[[], object]) -> float:
    """Return the microseconds of processor time that `work` takes."""
    count, spent = 0, 0.0
    while spent < SPAN:
        begin = time.process_time()
        for _ in range(10):
            work()
        spent += time.process_time() - begin
        count += 10
    return spent / count * 1e6


def measure(args: tuple[Any, ...]) -> dict[str, float]:
    """Return times and sizes for some arguments."""
    from soc_tasks.logic import envelopes
    from soc_tasks.logic.calls import Call, describe, read_call, write_call

    call = Call(function=noop, args=args, kwargs={})
    pickled = pickle.dumps((noop, args, {}))
    written = write_call(call)
    context, kept = envelopes.seal(written, describe(noop))
    if kept is not None:
        raise ValueError("these arguments do not travel in the task")

    def seal() -> None:
        envelopes.seal(write_call(call), describe(noop))

    return {
        "pickle writes": clock(lambda: pickle.dumps((noop, args, {}))),
        "pickle reads": clock(lambda: pickle.loads(pickled)),
        "text writes": clock(lambda: write_call(call)),
        "text reads": clock(lambda: read_call(written.text)),
        "sealed writes": clock(seal),
        "sealed reads": clock(lambda: read_call(envelopes.open_sealed(context, ""))),
        "pickle bytes": len(pickled),
        "text bytes": len(written.text),
        "sealed bytes": len(urlencode(context)),
    }


def main() -> None:
    """Measure, and print medians with ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deferred.arguments")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soc_tasks_bench_") as folder:
        os.environ["SOC_TASKS_BENCH_DATABASE"] = str(Path(folder) / "bench.sqlite3")
        set_up_django("benchmarks.settings")
        cases = make_cases()
        rounds = [{name: measure(args) for name, args in cases.items()} for _ in range(options.rounds)]
    print("\nencode and decode, microseconds of processor time; x: that many times pickle's\n")
    print(f"{'':20}{'pickle':>16}{'text':>25}{'sealed':>25}{'bytes: pickle, text, sealed':>36}")
    for name in cases:
        cells = []
        for way in ("pickle", "text", "sealed"):
            times = [statistics.median(each[name][f"{way} {verb}"] for each in rounds) for verb in ("writes", "reads")]
            cells.append(f"{times[0]:7,.1f} +{times[1]:7,.1f}")
            if way != "pickle":
                ratios = [
                    (each[name][f"{way} writes"] + each[name][f"{way} reads"])
                    / (each[name]["pickle writes"] + each[name]["pickle reads"])
                    for each in rounds
                ]
                cells[-1] += f"{statistics.median(ratios):6.1f}x"
        sizes = ", ".join(f"{rounds[0][name][f'{way} bytes']:,.0f}" for way in ("pickle", "text", "sealed"))
        print(f"{name:20}{cells[0]}{cells[1]:>25}{cells[2]:>25}{sizes:>36}")


if __name__ == "__main__":
    main()
