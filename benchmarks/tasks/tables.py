"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.contenders.catalog import BY_KEY, CATALOG, DURABILITY, SURVIVES, Entry
from benchmarks.tasks.goals import GOALS, Goal
from benchmarks.tasks.parts import PARTS, Column
from benchmarks.tasks.results import Results, find_ratios, find_values, show


def make_row(cells: list[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def make_head(titles: list[str]) -> list[str]:
    """Return the first two lines of a table."""
    return [make_row(titles), f"|{'---|' * len(titles)}"]


def compare(part: dict[str, Any], entry: Entry, column: Column) -> str:
    """Return how many times better ours is by a figure, within one round."""
    ratios = find_ratios(part, entry.beside, [entry.key], column.key) if entry.beside else []
    if not column.more and not all(ratios):
        return ""
    return show(ratios if column.more else [1 / ratio for ratio in ratios], "{:.2f}", " x")


def make_table(name: str, part: dict[str, Any]) -> list[str]:
    """Return the table of a part; in `ours is`, above 1 is better for ours."""
    shown = PARTS[name]
    titles = []
    for column in shown.columns:
        titles += [column.title, "ours is"] if column.compared else [column.title]
    lines = make_head(["", *titles, "committed work survives"])
    for entry in shown.entries:
        if entry.key not in part["rounds"][0]:
            continue
        cells = []
        for column in shown.columns:
            cells.append(show(find_values(part, entry.key, column.key), column.form))
            if column.compared:
                cells.append(compare(part, entry, column))
        lines.append(make_row([f"**{entry.title}**" if entry.ours else entry.title, *cells, SURVIVES[entry.on]]))
    return lines


def make_part(name: str, part: dict[str, Any], picture: str | None) -> list[str]:
    """Return what the page says of a part."""
    shown, rounds = PARTS[name], len(part["rounds"])
    lines = [
        shown.what.format(most=part["options"]["most"]),
        "",
        f"{part['date']}, `{part['command']}`; load {part['load'][0]} before and {part['load'][1]} after, "
        f"a request that does nothing took {part['request']:.0f} µs"
        + (f" in each of {shown.busy} processes at one time; " if shown.busy > 1 else "; ")
        + (f"median of {rounds} rounds [lowest - highest]." if rounds > 1 else "one round."),
        "",
        *make_table(name, part),
    ]
    if part["left_out"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {BY_KEY[key].title}: {reason}." for key, reason in sorted(part["left_out"].items())]
    if picture is not None:
        lines += ["", f"![{shown.title}: {shown.brief}]({picture})"]
    return lines


def make_promises() -> list[str]:
    """Return what each contender promises, as it was measured."""
    lines = make_head(["", "what was committed", "delivery"])
    return lines + [make_row([entry.title, DURABILITY[entry.on], entry.promise]) for entry in CATALOG]


def make_machine(results: Results) -> list[str]:
    """Return the machine; where parts were measured on several, each of them."""
    machines: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name in PARTS:
        if name in results:
            machines.setdefault(tuple(sorted(results[name]["machine"].items())), []).append(name)
    lines = []
    for machine, names in machines.items():
        told = ", ".join(f"{key} {value}" for key, value in machine if key not in {"processors", "system", "peers"})
        found = dict(machine)
        lines.append(
            f"- {found['processors']}, {found['system']}, {told}; peers: {found['peers'] or 'none'}"
            + (f" ({', '.join(names)})" if len(machines) > 1 else "")
        )
    return lines


def make_goals(results: Results, goals: Sequence[Goal] = GOALS, title: str = "goal") -> list[str]:
    """Return which goals are met."""
    lines = make_head(["", title, "measured", ""])
    for goal in goals:
        found = goal.measure(results)
        if found:
            met = goal.is_met(found, goal.find_limit(results))
            told = [goal.title, goal.tell(results), show(found, goal.form), "met" if met else "**missed**"]
            lines.append(make_row(told))
    return lines
