"""`tasks resume`: let a paused queue run again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.embedded import check_queue, open_backend

help = "Resume a queue that was paused."


def add_arguments(parser: CommandParser) -> None:
    """Add the queue."""
    parser.add_argument("queue", help="name of the queue")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Resume the queue."""
    backend, queue = open_backend(), options["queue"]
    check_queue(backend, queue)
    backend.resume(queue)
    command.stdout.write(f"The queue {queue} runs.")
