"""The first page: what waits, what runs, what failed, and what wants to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils import timezone

from soc_tasks.logic.overview import Alert, Counts, MinuteFigures, Overview, read_overview
from soc_tasks.views.console.iterations import describe

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console

#: Height and width of a chart in its own units; a bar stands for a minute.
HEIGHT: Final = 100
BAR: Final = 10
#: Alerts that are shown.
MOST_ALERTS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A minute of a chart.

    Args:
        x, y, height: where it stands.
        title: what it says to those who point at it.
    """

    x: int
    y: float
    height: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart of the last hour.

    Args:
        label: what it shows.
        total: the sum.
        most: the highest bar.
        bars: a bar for each minute in which there was something.
        width: of the whole, in its own units.
        begin, end: the first and the last minute.
    """

    label: str
    total: int
    most: int
    bars: tuple[Bar, ...]
    width: int
    begin: datetime
    end: datetime


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [console.page("", show_overview, "changelist")]


def show_overview(console: Console, request: HttpRequest) -> HttpResponse:
    """Show how things stand."""
    overview = read_overview()
    values = {
        "overview": overview,
        "tiles": _make_tiles(console, overview),
        "charts": [] if overview.minutes is None else draw_charts(overview.minutes),
        "more_alerts": max(0, len(overview.alerts) - MOST_ALERTS),
        "alerts": [(alert, _find_page(console, alert)) for alert in overview.alerts[:MOST_ALERTS]],
        "rows": [describe(iteration) for iteration in overview.iterations],
    }
    return console.render(request, "overview", "Console", values, tab="changelist", live=True, poll=5)


def _make_tiles(console: Console, overview: Overview) -> list[dict[str, Any]]:
    """Return the figures at the top: label, value, the page that tells more, and what the value is of."""
    counts = overview.counts
    oldest = [queue.oldest for queue in overview.queues if queue.oldest is not None and not queue.paused]
    tiles: list[dict[str, Any]] = [
        _tile(console, counts, "Due", "due", "tasks", "?state=due"),
        _tile(console, counts, "Running", "running", "tasks", "?state=running"),
        _tile(console, counts, "Waiting", "waiting", "tasks"),
        {"label": "Oldest waits for", "age": max((overview.time - min(oldest, default=overview.time)), timedelta())},
        _tile(console, counts, "Failures", "dead_letters", "failures"),
        _tile(console, counts, "Given up this hour", "recent_dead_letters", "failures"),
    ]
    if not oldest:
        tiles[3]["age"] = None
    if overview.workers is not None:
        tiles.append({"label": "Workers", "value": f"{overview.workers:,}", "is_bad": overview.workers == 0})
    return tiles


def _tile(console: Console, counts: Counts, label: str, name: str, page: str, query: str = "") -> dict[str, Any]:
    number: int | None = getattr(counts, name)
    text = "\N{EN DASH}" if number is None else f"{number:,}{'+' if name in counts.capped else ''}"
    is_bad = name.endswith("letters") and bool(number)
    return {"label": label, "value": text, "url": console.url(page) + query, "is_bad": is_bad}


def draw_charts(minutes: Sequence[MinuteFigures]) -> list[Chart]:
    """Return the charts of the last hour: attempts that succeeded, and those that failed."""
    return [
        _draw("Succeeded", minutes, [minute.succeeded for minute in minutes]),
        _draw("Failed attempts", minutes, [minute.failed for minute in minutes]),
    ]


def _draw(label: str, minutes: Sequence[MinuteFigures], numbers: Sequence[int]) -> Chart:
    most = max(numbers, default=0)
    bars = []
    for place, (minute, number) in enumerate(zip(minutes, numbers, strict=True)):
        if number:
            # What is there is seen, however little it is beside the highest.
            height = round(max(2.0, HEIGHT * number / most), 2)
            local = timezone.localtime(minute.minute)
            title = f"{local:%H:%M}: {number:,}"
            bars.append(Bar(x=place * BAR, y=round(HEIGHT - height, 2), height=height, title=title))
    return Chart(
        label=label,
        total=sum(numbers),
        most=most,
        bars=tuple(bars),
        width=BAR * len(minutes),
        begin=minutes[0].minute,
        end=minutes[-1].minute,
    )


def _find_page(console: Console, alert: Alert) -> str:
    """Return the page where something can be done about an alert, or ""."""
    if alert.iteration is not None:
        return console.url("iteration", alert.iteration)
    if alert.kind == "dead_letters":
        return console.url("failures")
    return console.url("queues") if alert.queue is not None else ""
