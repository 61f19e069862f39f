"""`tasks relay`: hand on what a process that died left behind."""

from __future__ import annotations

import logging
import math
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand

from soc_tasks.management.verbs.printing import add_json_option, write_result

help = "Hand on tasks from the outboxes, queue stuck iterations anew, and forget what is old."

logger = logging.getLogger("soc_tasks")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "--every",
        type=seconds,
        metavar="SECONDS",
        help="do so again and again, with so many seconds in between, until stopped by SIGTERM or Ctrl-C",
    )
    add_json_option(parser, "print one JSON object for each round that had something to do")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Relay once, or until stopped."""
    from soc_tasks.logic.upkeep import look_after

    every = options["every"]

    def show(handed_on: int, stuck: int) -> None:
        write_result(command, options, _describe(handed_on, stuck), handed_on=handed_on, stuck=stuck)
        command.stdout.flush()

    if every is None:
        show(*look_after())
        return
    from soc_tasks.engine.loglines import show_log_lines
    from soc_tasks.engine.stopping import stopping

    if options["verbosity"] >= 1:
        show_log_lines(logging.DEBUG if options["verbosity"] > 1 else logging.INFO)
    with stopping() as stop:
        write_result(command, options, f"soc_tasks relay ready: every={every:g}s", ready=True, every=every)
        command.stdout.flush()
        repeat(every, stop.wait, look_after, show)


def repeat(
    every: float, wait: Callable[[float], bool], once: Callable[[], tuple[int, int]], tell: Callable[[int, int], None]
) -> None:
    """Relay again and again; what fails is told once, and tried again.

    Args:
        every: seconds between two rounds.
        wait: waits for so many seconds; returns whether to end.
        once: does one round, and returns how many tasks were handed on, and how many shards queued anew.
        tell: called with the same where a round had something to do.
    """
    from django.db import Error, connections

    from soc_tasks.errors import BackendUnavailableError

    trouble = False
    while True:
        try:
            done = once()
        except (Error, BackendUnavailableError) as error:
            if not trouble:
                logger.warning("the relay cannot work, and tries again every %g s: %s", every, error)
            trouble = True
        except Exception:
            logger.exception("the relay failed; it is tried again")
        else:
            if trouble:
                logger.info("the relay works again")
            trouble = False
            if any(done):
                tell(*done)
        # A connection that is kept may be dead by the next round, and is in somebody's way until then.
        connections.close_all()
        if wait(every):
            return


def _describe(handed_on: int, stuck: int) -> str:
    return f"{handed_on} tasks handed on, {stuck} stuck shards queued anew"


def seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


seconds.__name__ = "positive number"
