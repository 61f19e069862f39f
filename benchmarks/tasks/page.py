"""Writes results into a page, between marks: `<!-- begin NAME -->` and `<!-- end NAME -->`, one pair for each block."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.tasks import plots, tables
from benchmarks.tasks.goals import FLOORS
from benchmarks.tasks.parts import PARTS
from benchmarks.tasks.results import Results


def fill_block(page: str, name: str, lines: list[str]) -> str:
    """Return the page with a block replaced; what stands around it stays.

    Raises:
        SystemExit: the page has no place for it.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"The page has no place for {name}: put {begin} and {end} into it, on lines of their own.")
    block = "\n".join([begin, *lines, end])
    return pattern.sub(lambda _: block, page, count=1)


def write_page(path: Path, results: Results) -> None:
    """Write all blocks that there are results for, and the pictures into a folder named as the page."""
    page, folder = path.read_text(), path.with_suffix("")
    pictures = plots.draw(results, folder)
    page = fill_block(page, "machine", tables.make_machine(results))
    page = fill_block(page, "goals", tables.make_goals(results))
    page = fill_block(page, "floors", tables.make_goals(results, FLOORS, "at least"))
    page = fill_block(page, "promises", tables.make_promises())
    for name in PARTS:
        if name in results:
            picture = f"{folder.name}/{pictures[name]}" if name in pictures else None
            page = fill_block(page, name, tables.make_part(name, results[name], picture))
    path.write_text(page)
