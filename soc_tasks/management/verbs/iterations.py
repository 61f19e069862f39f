"""`tasks iterations`: list and steer them, one by one; their failed items; try one dry (dry_runs.py)."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from soc_tasks.errors import SocTasksError
from soc_tasks.logic.iterations import Iteration
from soc_tasks.management.verbs import dry_runs
from soc_tasks.management.verbs.printing import add_json_option, write_json, write_json_lines

help = "List iterations; pause, resume or cancel one; its shards at a time; its failed items; try one dry."

#: Characters of an error that are shown in a line.
LONGEST: Final = 120
#: The status that each action leads to.
REACHED = {"pause": "paused", "resume": "running", "cancel": "cancelled"}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=["list", "pause", "resume", "cancel", "concurrency", "failed", "retry-failed"],
        default="list",
        help="default: list",
    )
    parser.add_argument(
        "ids",
        nargs="*",
        help="iterations by id, or the last characters of one; for concurrency, one, and then a number, or 'all'",
    )
    parser.add_argument("--limit", type=int, help="list so many (default: 20); end a dry run after so many rows")
    parser.add_argument("--item", type=int, action="append", help="retry-failed: only this item; may be repeated")
    parser.add_argument("--full", action="store_true", help="failed: with tracebacks; list: errors in full")
    add_json_option(parser)
    dry_runs.add_arguments(parser)


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """List or steer.

    Raises:
        CommandError: an id is missing, unknown or not unique; or what `dry_runs.handle` raises.
    """
    if options["dry_run"] is not None:
        if options["action"] != "list" or options["ids"]:
            raise CommandError("--dry-run takes one task or iteration, and no action beside it.")
        dry_runs.handle(command, options)
        return
    action = options["action"]
    if action == "list":
        limit = 20 if options["limit"] is None else options["limit"]
        found = [find(prefix) for prefix in options["ids"]] or Iteration.all(limit=limit)
        for iteration in found:
            show(command, iteration, options)
        if not found and not options["json"]:
            command.stdout.write("no iterations")
        return
    if not options["ids"]:
        raise CommandError(f"Which one? `tasks iterations {action} ID`; `tasks iterations` lists them.")
    if action == "concurrency":
        show(command, set_concurrency(*options["ids"]), options)
        return
    for prefix in options["ids"]:
        iteration = find(prefix)
        if action == "failed":
            list_failed(command, iteration, options)
            continue
        if action == "retry-failed":
            retry_failed(command, iteration, options)
            continue
        getattr(iteration, action)()
        if iteration.status != REACHED[action]:
            raise CommandError(f"Iteration {iteration.id} is {iteration.status}; `{action}` has no effect on it.")
        show(command, iteration, options)


def show(command: BaseCommand, iteration: Iteration, options: dict[str, Any]) -> None:
    """Print an iteration: a line, or its progress and that of its shards as JSON."""
    if options["json"]:
        write_json(command, as_dict(iteration))
    else:
        command.stdout.write(describe(iteration, full=options["full"]))


def as_dict(iteration: Iteration) -> dict[str, Any]:
    """Return an iteration ready for JSON."""
    return {
        "id": iteration.id,
        "name": iteration.name,
        "created": iteration.created,
        "finished": iteration.finished,
        "error": iteration.error,
        "retries": iteration.retries,
        "concurrency": iteration.concurrency,
        **iteration.as_dict(),
    }


def set_concurrency(part: str, *limits: str) -> Iteration:
    """Set how many shards of an iteration work at a time.

    Raises:
        CommandError: there is no such iteration, it has ended, or there is not one number.
    """
    [limit] = limits if len(limits) == 1 else [""]
    if limit != "all" and not (limit.isdecimal() and int(limit)):
        raise CommandError(
            "How many shards may work at a time? `tasks iterations concurrency ID 3`; `all` lifts the limit."
        )
    iteration, wanted = find(part), None if limit == "all" else int(limit)
    if iteration.set_concurrency(wanted).concurrency != wanted:
        raise CommandError(f"Iteration {iteration.id} is {iteration.status}; `concurrency` has no effect on it.")
    return iteration


def list_failed(command: BaseCommand, iteration: Iteration, options: dict[str, Any]) -> None:
    """List the failed items of an iteration."""
    items = iteration.failed_items(limit=100 if options["limit"] is None else options["limit"])
    if options["json"]:
        write_json_lines(command, items)
        return
    for item in items:
        tries = "" if item.attempts == 1 else f"given up {item.attempts} times  "
        error = " ".join(f"{item.error_type}: {item.error}".split())
        command.stdout.write(f"{item.id}  {item.entity}  {tries}{error}")
        if options["full"]:
            command.stdout.write(item.traceback)
    number = iteration.count_failed_items()
    if not number:
        command.stdout.write("no failed items")
    elif number > len(items):
        command.stdout.write(f"… and {number - len(items):,} more; --limit {number} lists all")


def retry_failed(command: BaseCommand, iteration: Iteration, options: dict[str, Any]) -> None:
    """Try failed items of an iteration again.

    Raises:
        CommandError: they cannot be.
    """
    try:
        retry = iteration.retry_failed(options["item"])
    except (LookupError, SocTasksError) as error:
        raise CommandError(str(error)) from error
    if retry is not None:
        show(command, retry, options)
    elif not options["json"]:
        command.stdout.write("no failed items")


def find(part: str) -> Iteration:
    """Return the one iteration whose id is `part`, or ends or begins with it.

    Raises:
        CommandError: there is none, or more than one.
    """
    try:
        return Iteration.get(part)
    except Iteration.DoesNotExist:
        found = [i for i in Iteration.all(limit=1000) if i.id.endswith(part) or i.id.startswith(part)]
    if len(found) != 1:
        what = "No iteration has" if not found else f"{len(found)} iterations have"
        raise CommandError(f"{what} the id {part!r}; `tasks iterations` lists them with their whole ids.")
    return found[0]


def describe(iteration: Iteration, *, full: bool = False) -> str:
    """Return an iteration as one line; `full`: with the whole of its error."""
    total = "?" if iteration.total is None else f"{iteration.total:,}"
    left = iteration.time_left if iteration.status == "running" else None
    parts = [
        iteration.id,
        f"{iteration.status:<9}",
        f"{iteration.done:,} of {total}",
        f"{iteration.failed:,} failed" if iteration.failed else "",
        f"{iteration.rate:,.0f}/s",
        f"left {format_time(left)}" if left is not None else "",
        describe_parked(iteration),
        iteration.name + (f" (retry of {iteration.retries})" if iteration.retries else ""),
        describe_trouble(iteration, full=full),
    ]
    return "  ".join(part for part in parts if part)


def describe_parked(iteration: Iteration) -> str:
    """Return how many shards are parked, and why; "" where there is no limit, or no shard left that it may stop."""
    if iteration.concurrency is None or iteration.status not in ("running", "paused", "failed"):
        return ""
    parked = sum(shard.status == "parked" for shard in iteration.shards)
    return f"at most {iteration.concurrency} of {len(iteration.shards)} shards at a time, {parked} parked"


def describe_trouble(iteration: Iteration, *, full: bool = False) -> str:
    """Return what ended an iteration, or what keeps or holds it back; "" if nothing does."""
    if iteration.error:
        return iteration.error if full else shorten(iteration.error)
    if iteration.status == "running" and iteration.hold:
        return f"held back: {iteration.hold}"
    failing = [shard for shard in iteration.shards if shard.status in ("running", "paused") and shard.error]
    if not failing:
        return ""
    error = failing[0].error
    return f"failed {failing[0].attempts} times: {error if full else shorten(error)}"


def shorten(error: str) -> str:
    """Return an error so that it fits into a line: its class without the module, and its first sentence."""
    kind, colon, text = error.partition(": ")
    if colon and re.fullmatch(r"[\w.]+", kind):
        kind = kind.rpartition(".")[2]
    else:
        kind, colon, text = "", "", error
    lines = text.strip().splitlines() or [""]
    sentence = re.split(r"(?<=[.!?]) ", lines[0], maxsplit=1)[0]
    cut = sentence if len(sentence) <= LONGEST else f"{sentence[: LONGEST - 1]}…"
    return f"{kind}{colon}{cut}"


def format_time(span: timedelta) -> str:
    """Return a span in whole seconds, as 1:02:03."""
    return str(timedelta(seconds=round(span.total_seconds())))
