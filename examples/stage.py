"""What every demo does: run once in a folder of its own, look after its processes, show progress, say what happens."""

from __future__ import annotations

import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from examples.browser import BrowserError
from examples.cast import Cast

ITERATION = re.compile(r'data-iteration="([^"]+)"')
ENDED = {"succeeded", "failed", "cancelled"}


class DemoError(Exception):
    """The demo cannot go on."""


class Result(Protocol):
    """What is counted; its text is the last line."""

    seconds: float


def perform(run: Callable[[ExitStack, Path, float], None], result: Result) -> int:
    """Run a demo, and print its result; return the exit status.

    Args:
        run: called with what ends all that it starts, a folder, and `time.monotonic()` of the start.
        result: filled in by it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Leave through the `with` blocks, so that no process of ours stays behind.
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    begin = time.monotonic()
    problem = None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soc_tasks_demo_")))
        try:
            run(stack, folder, begin)
        except DemoError as error:
            problem = error
        except KeyboardInterrupt:
            print("demo: stopped", file=sys.stderr)
            return 130
    result.seconds = time.monotonic() - begin
    if problem:
        print(f"demo: {problem}", file=sys.stderr)
    print(result, flush=True)
    return 1 if problem else 0


class Stage:
    """Looks after the processes of a cast.

    Args:
        cast: who plays.
        begin: `time.monotonic()` of the start.
        limit: seconds; on a machine with much else to do it takes long, and is not wrong for that.
    """

    def __init__(self, cast: Cast, begin: float, limit: float) -> None:
        self.cast = cast
        self._limit = limit
        self._end = begin + limit

    def wait_for(self, port: int) -> None:
        """Wait until somebody listens on a port."""
        while True:
            self.check_on_processes()
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return

    def check_on_processes(self) -> None:
        """Give up when the time is over or a process ended by itself."""
        for name, process in self.cast.processes.items():
            if process.has_ended():
                raise DemoError(f"the {name} ended by itself; the end of its log:\n{process.read_log()}")
        if time.monotonic() > self._end:
            raise DemoError(f"not finished after {self._limit:.0f} s; {self.tell_log(self.cast.lead)}")

    def tell_log(self, name: str) -> str:
        """Return the end of a process's log, with words before it."""
        return f"the end of the {name}'s log:\n{self.cast.processes[name].read_log()}"

    def check_success(self, **iterations: Any) -> None:
        """Give up where an iteration has ended otherwise than well."""
        for name, iteration in iterations.items():
            if iteration.status != "succeeded":
                raise DemoError(f"the iteration of the {name} has {iteration.status}; {self.tell_log(self.cast.lead)}")


def find_iteration(key: str) -> Any:
    """Return the iteration, or None as long as its first task has not run."""
    from soc_tasks import Iteration

    try:
        return Iteration.get(key)
    except Iteration.DoesNotExist:
        return None


def read_iteration(page: str) -> str:
    """Return the id that the starter's page shows."""
    found = ITERATION.search(page)
    if found is None:
        raise BrowserError("The starter's page shows no iteration; was the form refused?")
    return found[1]


def say(text: str) -> None:
    """Print a line at once, above the bars where there are any."""
    _print(f"  {text}")


def _print_flushed(text: str) -> None:
    print(text, flush=True)


_print = _print_flushed


@contextmanager
def show_progress(totals: Mapping[str, int | None]) -> Iterator[Any]:
    """Give a function that shows iterations: bars in a terminal, else a line every two seconds.

    Args:
        totals: names of the iterations, and how many entities each has, where that is known beforehand.
    """
    if sys.stdout.isatty():
        with _show_bars(totals) as show:
            yield show
        return
    shown = 0.0

    def show(*iterations: Any) -> None:
        nonlocal shown
        if time.monotonic() >= shown + 2:
            shown = time.monotonic()
            parts = []
            for (name, total), iteration in zip(totals.items(), iterations, strict=True):
                parts.append(f"{name} {iteration.done if iteration else 0}" + (f" of {total}" if total else ""))
            say(", ".join(parts))

    yield show


@contextmanager
def _show_bars(totals: Mapping[str, int | None]) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    global _print
    columns = TextColumn("  {task.description:7}"), BarColumn(40), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        bars = [progress.add_task(name, total=total) for name, total in totals.items()]

        def show(*iterations: Any) -> None:
            for bar, iteration in zip(bars, iterations, strict=True):
                if iteration:
                    progress.update(bar, completed=iteration.done, total=iteration.total)

        _print = partial(progress.console.print, markup=False, highlight=False)
        try:
            yield show
        finally:
            _print = _print_flushed
