"""`tasks watch`: a bar for each iteration, with rate and time left, live."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError

from soc_tasks.logic.iterations import Iteration
from soc_tasks.logic.progress import ENDED
from soc_tasks.management.verbs.iterations import describe_parked, describe_trouble, find, format_time

help = "Show the progress of iterations, live."

#: Last characters of an id that are shown: the first ones are the time, the last ones chance.
SHOWN = 8


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("ids", nargs="*", help="iterations by id, or the last characters of one; default: the newest")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between readings (default: 0.5)")
    parser.add_argument("--limit", type=int, default=10, help="show the newest so many (default: 10)")
    parser.add_argument("--until-done", action="store_true", help="end when all that are shown have ended")
    parser.add_argument("--once", action="store_true", help="show once and end")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Watch until interrupted.

    Raises:
        CommandError: rich is not installed.
    """
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError as error:
        raise CommandError("`tasks watch` draws with rich: pip install 'soc-tasks[cli]'") from error
    wanted = [find(prefix).id for prefix in options["ids"]]
    watch = Watch(wanted, options["limit"])
    console = Console(file=cast("IO[str]", command.stdout))
    if options["once"]:
        console.print(watch.draw())
        return
    with Live(watch.draw(), console=console, auto_refresh=False) as live:
        try:
            while not (options["until_done"] and watch.has_ended()):
                time.sleep(options["interval"])
                live.update(watch.draw(), refresh=True)
        except KeyboardInterrupt:
            return


class Watch:
    """What is shown.

    Args:
        ids: iterations to show; none: the newest.
        limit: how many.
    """

    def __init__(self, ids: list[str], limit: int) -> None:
        self._ids = ids
        self._limit = limit
        self._shown: list[Iteration] = []

    def has_ended(self) -> bool:
        """Tell whether everything that is shown has ended."""
        return bool(self._shown) and all(iteration.status in ENDED for iteration in self._shown)

    def draw(self) -> Any:
        """Read the iterations, and return a table of them."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Column, Table
        from rich.text import Text

        self._shown = [Iteration.get(i) for i in self._ids] if self._ids else Iteration.all(limit=self._limit)
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
        for iteration in self._shown:
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
        if not self._shown:
            return "no iterations yet"
        troubles = [(iteration, describe_trouble(iteration)) for iteration in self._shown]
        parked = [(iteration, describe_parked(iteration)) for iteration in self._shown]
        limits = [Text(f"{i.id[-SHOWN:]} {limit}", style="dim") for i, limit in parked if limit]
        return Group(
            table, *limits, *(Text(f"{i.id[-SHOWN:]} {trouble}", style="red") for i, trouble in troubles if trouble)
        )


def _write_left(iteration: Iteration) -> str:
    left = None if iteration.status in ENDED else iteration.time_left
    return "" if left is None else format_time(left)
