"""The benchmark of tasks: each part of ours runs, and its figures reach the page."""

from benchmarks.bare import REFERENCE
from benchmarks.contenders.catalog import BY_KEY
from benchmarks.contenders.rounds import measure
from benchmarks.databases import Postgres
from benchmarks.tasks import results, tables
from benchmarks.tasks.page import fill_block
from benchmarks.tasks.parts import PARTS


def test_each_part_measures_ours():
    options = {"tasks": 40, "most": 100, "samples": 2, "gap": 0.01, "idle": 0.05, "seconds": 0.05, "times": 3}
    # Each leaves the next one what it does not mind.
    modules = ",".join(f"benchmarks.tasks.{name}" for name in ("drain", "latency", "both", "memory", "flat", "enqueue"))
    figures = measure(BY_KEY["ours"], modules, options, Postgres())
    # Of a few tasks most have run before the processor's time is asked for.
    columns = {column.key for part in PARTS.values() for column in part.columns} - {"processor"}
    assert not columns - set(figures)
    assert all(figures[key] > 0 for key in columns - {"commits", "idle"})

    rounds, more = [{"ours": figures}], {"command": "-", "load": ["0", "0"], "request": 2 * REFERENCE}
    kept = {name: results.note(rounds, {"huey": "not installed"}, options, **more) for name in PARTS}
    for name, part in kept.items():
        lines = tables.make_part(name, part, None)
        page = fill_block(f"before\n<!-- begin {name} -->\nold\n<!-- end {name} -->\nafter", name, lines)
        assert "**soc_tasks, SQLite NORMAL** |" in page
        assert "Huey, SQLite NORMAL: not installed." in page
        assert "\nold\n" not in page
        assert page.startswith(f"before\n<!-- begin {name} -->\n")
        assert page.endswith(f"\n<!-- end {name} -->\nafter")
    goals = "\n".join(tables.make_goals(kept))
    assert "However many wait: poll" in goals
    # On a machine that is half as fast.
    assert "≥ 30,000, here 15,000 |" in goals
    assert "≤ 2, here 4.00 |" in goals
