"""`tasks resume`: let a paused queue run again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.opening import check_queue, open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_result

help = "Resume a queue that was paused."


def add_arguments(parser: CommandParser) -> None:
    """Add the queue."""
    parser.add_argument("queue", help="name of the queue")
    add_json_option(parser, "print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Resume the queue."""
    backend, queue = open_backend(), options["queue"]
    check_queue(backend, queue)
    backend.resume(queue)
    write_result(command, options, f"The queue {queue} runs.", queue=queue, paused=False)
