"""Pictures of the results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.contenders.catalog import BY_KEY
from benchmarks.tasks.parts import PARTS
from benchmarks.tasks.results import Results, find_values

OURS, OTHERS = "#1f6f54", "#9aa5b1"


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw each part that was measured; return the files' names by part."""
    import matplotlib as mpl  # type: ignore[import-not-found] # it is in the extra `bench`

    mpl.use("svg")
    # The same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "soc_tasks"
    folder.mkdir(parents=True, exist_ok=True)
    names = {}
    for name in PARTS:
        if name in results and results[name]["rounds"]:
            figure = draw_lines(results[name]) if name == "memory" else draw_bars(name, results[name])
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            names[name] = f"{name}.svg"
    return names


def draw_bars(name: str, part: dict[str, Any]) -> Any:
    """Draw the median of the first figure of everybody, with the spread, best first."""
    from matplotlib import pyplot  # type: ignore[import-not-found]

    shown = PARTS[name]
    column = shown.columns[0]
    found = {entry: find_values(part, entry.key, column.key) for entry in shown.entries}
    rows = [(statistics.median(values), values, entry) for entry, values in found.items() if values]
    rows.sort(key=lambda row: row[0], reverse=not column.more)
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.3 * len(rows)), layout="constrained")
    medians = [median for median, _, _ in rows]
    spread = [
        [median - min(values) for median, values, _ in rows],
        [max(values) - median for median, values, _ in rows],
    ]
    axes.barh(
        [entry.title for _, _, entry in rows],
        medians,
        xerr=spread,
        color=[OURS if entry.ours else OTHERS for _, _, entry in rows],
        error_kw={"elinewidth": 1, "ecolor": "#333333"},
    )
    for place, median in enumerate(medians):
        axes.annotate(
            f" {column.form.format(median)}", (max(medians) * 1.02, place), va="center", annotation_clip=False
        )
    axes.set_xscale("log")
    axes.set_xlabel(f"{column.title} ({'more' if column.more else 'less'} is better)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def draw_lines(part: dict[str, Any]) -> Any:
    """Draw the memory over the tasks."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3), layout="constrained")
    for key, figures in part["rounds"][-1].items():
        axes.plot(*zip(*figures["line"], strict=True), label=BY_KEY[key].title)
    axes.set_xlabel("tasks that have run")
    axes.set_ylabel("MiB in memory")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
