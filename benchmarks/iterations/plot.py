"""A picture of what batches cost, from the first to the last."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Any

#: Points of a line.
POINTS = 50


def plot(found: dict[int, dict[str, Any]], picture: Path) -> None:
    """Draw milliseconds of a batch, and the memory, over the part of the rows that is done."""
    import matplotlib as mpl  # type: ignore[import-not-found] # it is in the extra `bench`

    mpl.use("svg")
    # The same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "soc_tasks"
    from matplotlib import pyplot  # type: ignore[import-not-found]

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(8, 5), layout="constrained")
    for size, result in found.items():
        moments = result["moments"]
        costs = [1000 * (after - before) for before, after in itertools.pairwise(moments)]
        memory = [number / 2**20 for number in result["memory"]]
        for axes, values in ((above, costs), (below, memory)):
            part = max(1, len(values) // POINTS)
            groups = [values[start : start + part] for start in range(0, len(values), part)]
            places = [min(100.0, 100 * (number + 0.5) * part / len(values)) for number in range(len(groups))]
            axes.plot(places, [statistics.median(group) for group in groups], label=f"{size:,} rows")
    above.set_ylabel("ms for 1,000 rows")
    below.set_ylabel("MiB in memory")
    below.set_xlabel("% of the rows done")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    above.legend()
    figure.savefig(picture, metadata={"Date": None})
