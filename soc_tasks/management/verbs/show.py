"""`tasks show`: one task in full."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.opening import (
    add_task_arguments,
    describe_record,
    no_such_task,
    open_backend,
)
from soc_tasks.management.verbs.printing import add_json_option, write_json

help = "Show a task that waits or runs: its attempts, options, headers and the size of its body."


def add_arguments(parser: CommandParser) -> None:
    """Add what names the task."""
    add_task_arguments(parser)
    parser.add_argument("--body", action="store_true", help="print the body, which may hold personal data")
    add_json_option(parser, "print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print a line for each property."""
    from soc_tasks.logic.envelopes import read_function

    queue, name = options["queue"], options["name"]
    record = open_backend().get_task(queue, name)
    if record is None:
        raise no_such_task(queue, name)
    task = record.task
    if options["json"]:
        values = describe_record(record) | {
            "error": record.error,
            "deadline": task.dispatch_deadline,
            "retry": None if task.retry is None else task.retry.as_dict(),
            "start_id": task.start_id,
            "headers": dict(task.headers),
            "body_bytes": len(task.body),
        }
        write_json(command, values | ({"body": task.body.decode(errors="replace")} if options["body"] else {}))
        return
    lines: dict[str, Any] = {
        "name": task.name,
        "queue": task.queue,
        "state": record.state,
        **({} if record.unknown is None else {"unknown since": _explain(record.unknown)}),
        "path": task.path,
        **({} if (function := read_function(task.body)) is None else {"function": function}),
        "created": task.created.isoformat(),
        "due": record.due.isoformat(),
        "attempts": record.attempts,
        "responses": record.responses,
        "first attempt": "-" if record.first_attempt is None else record.first_attempt.isoformat(),
        "last status": "-" if record.status is None else record.status,
        **({"last error": record.error} if record.error else {}),
        "crashes": record.crashes,
        "deadline": "-" if task.dispatch_deadline is None else f"{task.dispatch_deadline:g} s",
        "retry": "as the queue" if task.retry is None else task.retry.as_dict(),
        "start id": task.start_id,
    }
    lines.update({f"header {header}": value for header, value in task.headers.items()})
    lines["body"] = f"{len(task.body)} bytes"
    width = max(map(len, lines)) + 2
    for label, value in lines.items():
        command.stdout.write(f"{label + ':':<{width}}{value}")
    if options["body"]:
        command.stdout.write(task.body.decode(errors="replace"))


def _explain(since: datetime) -> str:
    return f"{since.isoformat(sep=' ')} (no worker that took it knows what it calls; it is a dead letter after a day)"
