"""The parts: what each measures, of whom, and how its figures are shown."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.contenders.catalog import CATALOG, Entry


class Column(NamedTuple):
    """A figure: its name, its title, how it is written, whether more is better, and whether it is compared."""

    key: str
    title: str
    form: str = "{:,.0f}"
    more: bool = True
    compared: bool = False


class Part(NamedTuple):
    """What is measured together; of most the first column is drawn."""

    title: str
    #: For the list of parts; and for the page.
    brief: str
    what: str
    columns: tuple[Column, ...]
    #: Of whom; None: of everybody who runs tasks, without those who differ by what this part does not touch.
    keys: tuple[str, ...] | None = None
    alike: tuple[str, ...] = ()
    raw: bool = False
    #: How many processes work at one time.
    busy: int = 1
    #: Most rounds: where a figure does not depend on the minute.
    rounds: int = 100

    @property
    def entries(self) -> list[Entry]:
        """Return the contenders."""
        if self.keys is not None:
            return [entry for entry in CATALOG if entry.key in self.keys]
        left = [entry for entry in CATALOG if entry.key not in self.alike]
        return [entry for entry in left if self.raw or entry.module != "on_raw"]


PARTS = {
    "enqueue": Part(
        "Enqueue",
        "tasks handed over a second: one by one, in a transaction, in bulk",
        "Tasks a second that one process hands over while nobody runs them: one by one, in one transaction of the "
        "database, by a call for many.",
        (
            Column("one", "one by one, /s", compared=True),
            Column("transaction", "in a transaction, /s"),
            Column("bulk", "in bulk, /s", compared=True),
        ),
        alike=("ours-middleware", "ours-window-10", "ours-window-1", "celery-late", "emulator-middleware"),
        raw=True,
    ),
    "drain": Part(
        "Drain",
        "tasks run a second, and the processor time of 1,000",
        "Tasks a second that two worker processes run of those that wait, from the first to the last; and seconds of "
        "processor time for 1,000 of them, of workers and servers together.",
        (
            Column("rate", "tasks/s", compared=True),
            Column("processor", "CPU s for 1,000", "{:.2f}", more=False, compared=True),
        ),
        busy=2,
    ),
    "latency": Part(
        "Latency",
        "how long a single task waits, and what idle workers take",
        "Milliseconds from the call to the first line of the task, of single tasks on idle workers; and what the idle "
        "workers and servers take of one processor.",
        (
            Column("p50", "p50, ms", "{:.1f}", more=False, compared=True),
            Column("p95", "p95, ms", "{:.1f}", more=False),
            Column("idle", "idle, % of a core", "{:.2f}", more=False),
        ),
    ),
    "both": Part(
        "Both at once",
        "one process enqueues while two drain",
        "One process enqueues one by one as fast as it can while two drain: tasks a second in and out, the "
        "share of those out, milliseconds of a call, and how many of SQLite's commits were the workers': they write "
        "many tasks by one, so that few are needed to keep up.",
        (
            Column("in", "in/s", compared=True),
            Column("out", "out/s", compared=True),
            Column("share", "out of all, %", "{:.0f}"),
            Column("p99", "p99 of a call, ms", "{:.1f}", more=False),
            Column("most", "longest call, ms", "{:.0f}", more=False),
            Column("commits", "workers' commits, %", "{:.0f}"),
        ),
        busy=2,
    ),
    "flat": Part(
        "However many wait",
        "cost of a poll and of a claim with up to a million tasks",
        "Microseconds (medians) of an empty poll, where so many tasks wait that are not due; and of a claim of ten, "
        "where so many are due: with 10, with a hundredth and with all of {most:,} tasks in the table.",
        tuple(
            Column(f"{what} {size}", f"{title}, {shown} wait, µs", more=False)
            for what, title in (("poll", "poll"), ("claim", "claim"))
            for size, shown in (("ten", "10"), ("hundredth", "a hundredth"), ("all", "all"))
        ),
        ("ours", "ours-full", "ours-postgresql"),
    ),
    "memory": Part(
        "Memory",
        "what the worker holds over a million tasks",
        "What the processes of the worker hold together (PSS), in MiB, while they run {most:,} tasks.",
        (
            Column("begin", "at 10 %, MiB", "{:.1f}", more=False),
            Column("middle", "at 50 %, MiB", "{:.1f}", more=False),
            Column("end", "at the end, MiB", "{:.1f}", more=False),
        ),
        ("ours", "ours-postgresql"),
        rounds=1,
    ),
}
