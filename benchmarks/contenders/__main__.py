"""Measures one contender, in the process and the environment that `rounds` gives it; prints its figures as JSON.

    python -m benchmarks.contenders MODULE MEASURE OPTIONS

`MEASURE` is a module with `measure(contender, options)`, or several with commas between them, and `OPTIONS` are JSON.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from benchmarks import marks


def main() -> None:
    """Measure what the arguments say."""
    module, measures, options = sys.argv[1:]
    contender = importlib.import_module(f"benchmarks.contenders.{module}").contender
    contender.set_up()
    figures: dict[str, Any] = {}
    for name in measures.split(","):
        marks.reset()
        figures |= importlib.import_module(name).measure(contender, json.loads(options))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
