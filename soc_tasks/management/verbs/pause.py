"""`tasks pause`: keep a queue's tasks back."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.opening import check_queue, open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_result

help = "Pause a queue: its tasks are kept, new ones taken, and none is started."


def add_arguments(parser: CommandParser) -> None:
    """Add the queue."""
    parser.add_argument("queue", help="name of the queue")
    add_json_option(parser, "print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Pause the queue."""
    backend, queue = open_backend(), options["queue"]
    check_queue(backend, queue)
    backend.pause(queue)
    write_result(command, options, f"The queue {queue} is paused; what runs already goes on.", queue=queue, paused=True)
