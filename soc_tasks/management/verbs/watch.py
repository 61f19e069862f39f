"""`tasks watch`: the queues, and a bar for each iteration with rate and time left, live."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError

from soc_tasks.logic.iterations import Iteration
from soc_tasks.logic.overview import Overview, QueueFigures, read_overview
from soc_tasks.logic.progress import ENDED
from soc_tasks.management.verbs.iterations import as_dict, describe_parked, describe_trouble, find, format_time
from soc_tasks.management.verbs.printing import add_json_option, write_json

help = "Show queues and iterations, live: what waits and runs, rates, progress, and what is wrong."

#: Last characters of an id that are shown: the first ones are the time, the last ones chance.
SHOWN = 8


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "ids",
        nargs="*",
        help="these iterations alone, by id, or the last characters of one; default: queues, the newest",
    )
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between readings (default: 0.5)")
    parser.add_argument("--limit", type=int, default=10, help="show the newest so many (default: 10)")
    parser.add_argument("--until-done", action="store_true", help="end when all iterations that are shown have ended")
    parser.add_argument("--once", action="store_true", help="show once and end")
    add_json_option(parser, "print one JSON object for each reading: the overview, or an iteration")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Watch until interrupted.

    Raises:
        CommandError: rich is not installed.
    """
    watch = Watch([find(part).id for part in options["ids"]], options["limit"])
    try:
        if options["json"]:
            _print(command, watch, options)
        else:
            _show(command, watch, options)
    except KeyboardInterrupt:
        return


def _print(command: BaseCommand, watch: Watch, options: dict[str, Any]) -> None:
    while True:
        for value in watch.read():
            write_json(command, value)
        command.stdout.flush()
        if options["once"] or (options["until_done"] and watch.has_ended()):
            return
        time.sleep(options["interval"])


def _show(command: BaseCommand, watch: Watch, options: dict[str, Any]) -> None:
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise CommandError("`tasks watch` draws with rich: pip install 'soc-tasks[cli]'; or use --json") from error
    console = Console(file=cast("IO[str]", command.stdout))
    if options["once"]:
        console.print(watch.draw())
        return
    with Live(watch.draw(), console=console, auto_refresh=False) as live:
        while not (options["until_done"] and watch.has_ended()):
            time.sleep(options["interval"])
            live.update(watch.draw(), refresh=True)


class Watch:
    """What is shown.

    Args:
        ids: iterations to show, and nothing else; none: the queues, and the newest iterations.
        limit: how many of these.
    """

    def __init__(self, ids: list[str], limit: int) -> None:
        self._ids = ids
        self._limit = limit
        self._shown: list[Iteration] = []

    def has_ended(self) -> bool:
        """Tell whether everything that is shown has ended."""
        return bool(self._shown) and all(iteration.status in ENDED for iteration in self._shown)

    def _look(self) -> Overview | None:
        self._shown = [Iteration.get(i) for i in self._ids] if self._ids else Iteration.all(limit=self._limit)
        return None if self._ids else read_overview()

    def read(self) -> list[dict[str, Any]]:
        """Return what is shown ready for JSON: each iteration that was named, or the overview."""
        overview = self._look()
        iterations = [as_dict(iteration) for iteration in self._shown]
        return iterations if overview is None else [overview.as_dict() | {"iterations": iterations}]

    def draw(self) -> Any:
        """Read what is shown, and return it for a terminal."""
        from rich.console import Group
        from rich.text import Text

        overview = self._look()
        parts: list[Any] = []
        if overview is not None:
            parts += [_draw_queues(overview), Text("")]
        parts.append(_draw_iterations(self._shown) if self._shown else Text("no iterations yet"))
        parked = [(iteration, describe_parked(iteration)) for iteration in self._shown]
        parts += [Text(f"{i.id[-SHOWN:]} {limit}", style="dim") for i, limit in parked if limit]
        troubles = [(iteration, describe_trouble(iteration)) for iteration in self._shown]
        parts += [Text(f"{i.id[-SHOWN:]} {trouble}", style="red") for i, trouble in troubles if trouble]
        if overview is not None:
            styles = {"error": "bold red", "warning": "yellow"}
            parts += [Text(alert.message, style=styles[alert.level]) for alert in overview.alerts]
        return Group(*parts)


def _draw_queues(overview: Overview) -> Any:
    from rich.table import Column, Table

    # What nobody can tell, as on Cloud Tasks, has no column.
    numbers = [name for name in ("due", "waiting", "running") if _is_told(overview, name)]
    right = [*numbers, *["oldest"] * ("due" in numbers), *["rate", "failing"] * _is_told(overview, "rate")]
    table = Table(
        Column("queue", no_wrap=True, overflow="ellipsis"),
        Column("state", no_wrap=True),
        *(Column(name, no_wrap=True, justify="right") for name in right),
        box=None,
        pad_edge=False,
    )
    for queue in overview.queues:
        told = {
            **{name: _write_count(queue, name) for name in numbers},
            "oldest": "" if queue.oldest_age is None else _write_age(queue.oldest_age),
            "rate": f"{queue.rate or 0:,.1f}/s",
            "failing": f"{queue.failure_rate:,.1f}/s" if queue.failure_rate else "",
        }
        table.add_row(queue.name, _write_state(queue), *(told[name] for name in right))
    return table


def _is_told(overview: Overview, name: str) -> bool:
    return any(getattr(queue, name) is not None for queue in overview.queues)


def _write_state(queue: QueueFigures) -> str:
    state = "paused" if queue.paused else "running"
    return state if queue.pace is None else f"{state}, {queue.pace:.2g}/s"


def _write_count(queue: QueueFigures, name: str) -> str:
    count = getattr(queue, name)
    if count is None:
        return "?"
    return f"{count:,}" + ("+" if queue.capped and name != "running" else "")


def _write_age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _draw_iterations(iterations: list[Iteration]) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table

    # Where the terminal is narrow, the bar and the name give way, never a number.
    table = Table(
        Column("id", no_wrap=True, min_width=SHOWN),
        Column("view", no_wrap=True, overflow="ellipsis"),
        Column("status", no_wrap=True, min_width=9),
        "progress",
        Column("done", no_wrap=True, justify="right", min_width=13),
        Column("rate", no_wrap=True, justify="right", min_width=7),
        Column("left", no_wrap=True, justify="right", min_width=7),
        box=None,
        pad_edge=False,
    )
    for iteration in iterations:
        total, worked = iteration.total, iteration.done + iteration.failed
        table.add_row(
            iteration.id[-SHOWN:],
            iteration.name.rsplit(".", 1)[-1],
            iteration.status,
            ProgressBar(total=total or None, completed=worked, width=20) if total else "",
            f"{iteration.done:,}/{'?' if total is None else f'{total:,}'}",
            f"{iteration.rate:,.0f}/s",
            _write_left(iteration),
        )
    return table


def _write_left(iteration: Iteration) -> str:
    left = None if iteration.status in ENDED else iteration.time_left
    return "" if left is None else format_time(left)
