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
            own = {"memory": draw_lines, "flat": draw_sizes}
            figure = own[name](results[name]) if name in own else draw_values(name, results[name])
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            names[name] = f"{name}.svg"
    return names


def draw_values(name: str, part: dict[str, Any]) -> Any:
    """Draw the median of the first figure of everybody, with the spread, best first: rates as bars, times as points."""
    from matplotlib import pyplot  # type: ignore[import-not-found]

    shown = PARTS[name]
    column = shown.columns[0]
    found = {entry: find_values(part, entry.key, column.key) for entry in shown.entries}
    rows = [(statistics.median(values), values, entry) for entry, values in found.items() if values]
    rows.sort(key=lambda row: row[0], reverse=not column.more)
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.28 * len(rows)), layout="constrained")
    for place, (median, values, entry) in enumerate(rows):
        color = OURS if entry.ours else OTHERS
        if column.more:
            axes.barh(place, median, color=color)
        spread = [[median - min(values)], [max(values) - median]]
        axes.errorbar(median, place, xerr=spread, fmt="none" if column.more else "o", color=color, ecolor="#333333")
        label = f"  {column.form.format(median)}"
        axes.annotate(label, (max(values), place), va="center", fontsize="small", annotation_clip=False)
    axes.set_yticks(range(len(rows)), [entry.title for _, _, entry in rows])
    if column.more:
        axes.set_xlim(0, 1.1 * max((max(values) for _, values, _ in rows), default=1))
    else:
        # A bar would have no beginning there.
        axes.set_xscale("log")
        axes.margins(x=0.1)
    axes.set_xlabel(f"{column.title} ({'more' if column.more else 'less'} is better)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def draw_sizes(part: dict[str, Any]) -> Any:
    """Draw what a poll and a claim cost over the tasks that wait."""
    from matplotlib import pyplot

    most = part["options"]["most"]
    sizes = {"ten": 10, "hundredth": most // 100, "all": most}
    figure, panels = pyplot.subplots(1, 2, sharey=True, figsize=(9, 3), layout="constrained")
    for axes, what in zip(panels, ("poll", "claim"), strict=True):
        for entry in PARTS["flat"].entries:
            values = [find_values(part, entry.key, f"{what} {size}") for size in sizes]
            if all(values):
                axes.plot(list(sizes.values()), [statistics.median(each) for each in values], "o-", label=entry.title)
        axes.set_xscale("log")
        axes.set_yscale("log")
        # As wide as an index that does not help would be.
        axes.set_ylim(10, 1_000_000)
        axes.set_xlabel("tasks that wait")
        axes.set_title({"poll": "a poll that finds nothing", "claim": "a claim of ten"}[what], fontsize="medium")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("µs")
    panels[1].legend(fontsize="small")
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
