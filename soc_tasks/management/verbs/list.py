"""`tasks list`: what waits or runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.opening import check_queue, describe_record, open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_json_lines
from soc_tasks.management.verbs.tables import write_table

help = "List the tasks that wait or run: running ones first, then by when they are due."


def add_arguments(parser: CommandParser) -> None:
    """Add queue and limit."""
    parser.add_argument("queue", nargs="?", help="this queue only")
    parser.add_argument("--limit", type=int, default=100, help="most tasks to list (default: %(default)s)")
    add_json_option(parser)


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print a line for each task."""
    from soc_tasks.logic.envelopes import read_function

    backend, queue, limit = open_backend(), options["queue"], max(1, options["limit"])
    if queue is not None:
        check_queue(backend, queue)
    records = backend.list_tasks(queue, limit=limit)
    if options["json"]:
        write_json_lines(command, map(describe_record, records))
        return
    if not records:
        command.stdout.write("No task waits or runs.")
        return
    rows = [
        (
            record.task.queue,
            record.task.name,
            record.state,
            record.due.isoformat(timespec="seconds"),
            record.attempts,
            "-" if record.status is None else record.status,
            read_function(record.task.body) or record.task.path,
        )
        for record in records
    ]
    write_table(command, ("queue", "name", "state", "due", "attempts", "status", "path or function"), rows)
    if len(records) == limit:
        command.stdout.write(f"(the first {limit}; more with --limit)")
