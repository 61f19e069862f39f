"""What is to be reached, within one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.bare import REFERENCE
from benchmarks.contenders.catalog import BY_KEY
from benchmarks.tasks.parts import PARTS
from benchmarks.tasks.results import Results, find_ratios, find_values

POSTGRESQL_PEERS = ("django-q-postgresql", "django-tasks-postgresql", "procrastinate")
DJANGO_PEERS = ("django-q", "django-q-postgresql", "django-tasks", "django-tasks-postgresql")


class Goal(NamedTuple):
    """A figure of ours: by itself, by the highest of others in the same round, or by another figure of its own."""

    part: str
    key: str
    column: str
    limit: float
    others: Sequence[str] = ()
    #: What the others are called together; None: by their title.
    name: str | None = None
    #: The other figure.
    per: str | None = None

    @property
    def title(self) -> str:
        """Return what is measured."""
        shown = PARTS[self.part]
        column = next(column for column in shown.columns if column.key == self.column)
        return f"{shown.title}: {column.title}; {BY_KEY[self.key].title.removeprefix('soc_tasks, ')}"

    @property
    def more(self) -> bool:
        """Tell whether the figure is to be above the limit."""
        return next(column.more for column in PARTS[self.part].columns if column.key == self.column)

    @property
    def form(self) -> str:
        """Return how the figure is written."""
        if self.others or self.per:
            return "{:.2f} x"
        return "{:,.0f}" if self.limit >= 100 else "{:.2f}"

    def find_limit(self, results: Results) -> float:
        """Return the limit; where it is no ratio, at the speed that this machine had."""
        if self.others or self.per or self.column == "share":
            return self.limit
        slower = results[self.part]["request"] / REFERENCE
        return self.limit / slower if self.more else self.limit * slower

    def tell(self, results: Results) -> str:
        """Return the goal in words."""
        limit = f"{'≥' if self.more else '≤'} {self.limit:,g}"
        if (here := self.find_limit(results)) != self.limit:
            limit += f", here {self.form.format(here)}"
        if self.others:
            return f"{limit} x {self.name or BY_KEY[self.others[0]].title}"
        if self.per:
            per = next(column.title for column in PARTS[self.part].columns if column.key == self.per)
            return f"{limit} x {per}"
        return limit

    def measure(self, results: Results) -> list[float]:
        """Return the figure of each round; nothing where it was not measured."""
        part = results.get(self.part)
        if part is None or "request" not in part:
            # Not measured, or by an older release of this.
            return []
        if self.others:
            return find_ratios(part, self.key, self.others, self.column)
        values = find_values(part, self.key, self.column)
        if self.per:
            return [value / other for value, other in zip(values, find_values(part, self.key, self.per), strict=True)]
        return values

    def is_met(self, found: Sequence[float], limit: float) -> bool:
        """Tell whether the median is on the right side."""
        median = statistics.median(found)
        return median >= limit if self.more else median <= limit


GOALS = (
    Goal("drain", "ours", "rate", 1.5, ("huey",)),
    Goal("drain", "ours", "rate", 10, DJANGO_PEERS, "the best Django peer"),
    Goal("drain", "ours-middleware", "rate", 10, DJANGO_PEERS, "the best Django peer"),
    Goal("drain", "ours-middleware", "rate", 10, ("emulator-middleware",), "the peer that runs it, too"),
    Goal("drain", "ours-full", "rate", 3.5, ("huey-full",)),
    Goal("drain", "ours-postgresql", "rate", 9, POSTGRESQL_PEERS, "the best peer on PostgreSQL"),
    Goal("drain", "ours-window-10", "rate", 10_000),
    Goal("drain", "ours-window-1", "rate", 1, ("dramatiq",)),
    Goal("drain", "ours", "processor", 0.11),
    Goal("drain", "ours-middleware", "processor", 0.18),
    Goal("enqueue", "ours", "one", 0.8, ("huey",)),
    Goal("enqueue", "ours", "one", 3.2, ("django-q",)),
    Goal("enqueue", "ours-full", "one", 0.6, ("raw-full",)),
    Goal("enqueue", "ours-postgresql", "one", 1.4, POSTGRESQL_PEERS, "the best peer on PostgreSQL"),
    Goal("enqueue", "ours", "transaction", 30_000),
    Goal("enqueue", "ours", "bulk", 8, ("procrastinate",)),
    Goal("enqueue", "ours-postgresql", "bulk", 3, ("procrastinate",)),
    Goal("latency", "ours", "p50", 2),
    Goal("latency", "ours", "p95", 4),
    Goal("latency", "ours", "idle", 0.5),
    Goal("latency", "ours-postgresql", "p50", 4),
    Goal("latency", "ours-postgresql", "p95", 8),
    Goal("both", "ours", "in", 8_000),
    Goal("both", "ours", "out", 8_000),
    Goal("both", "ours", "p99", 5),
    Goal("both", "ours-full", "share", 30),
    *(
        Goal("flat", key, f"{what} all", 1.5, per=f"{what} ten")
        for key in ("ours", "ours-full", "ours-postgresql")
        for what in ("poll", "claim")
    ),
    *(Goal("memory", key, "end", 1.1, per="begin") for key in ("ours", "ours-postgresql")),
)

#: Below these something is wrong, whatever the peers do.
FLOORS = (
    Goal("drain", "ours", "rate", 12_000),
    Goal("drain", "ours-middleware", "rate", 8_000),
    Goal("drain", "ours-full", "rate", 8_000),
    Goal("drain", "ours-window-10", "rate", 6_000),
    Goal("drain", "ours-window-1", "rate", 3_500),
    Goal("drain", "ours-postgresql", "rate", 7_000),
    Goal("drain", "ours", "processor", 0.16),
    Goal("enqueue", "ours", "one", 10_000),
    Goal("enqueue", "ours-full", "one", 0.5, ("raw-full",)),
    Goal("enqueue", "ours", "transaction", 20_000),
    Goal("enqueue", "ours", "bulk", 50_000),
    Goal("enqueue", "ours-postgresql", "one", 1_700),
    Goal("enqueue", "ours-postgresql", "bulk", 25_000),
    Goal("latency", "ours", "p50", 5),
    Goal("latency", "ours", "p95", 15),
    Goal("latency", "ours-postgresql", "p50", 8),
    Goal("latency", "ours-postgresql", "p95", 20),
    Goal("both", "ours", "in", 4_000),
    Goal("both", "ours", "out", 4_000),
)
