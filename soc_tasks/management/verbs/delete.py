"""`tasks delete`: remove one task."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.embedded import add_task_arguments, no_such_task, open_backend

help = "Delete a task. If it runs, this attempt goes on, and is the last."


def add_arguments(parser: CommandParser) -> None:
    """Add what names the task."""
    add_task_arguments(parser)


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Delete the task."""
    queue, name = options["queue"], options["name"]
    if not open_backend().delete_task(queue, name):
        raise no_such_task(queue, name)
    command.stdout.write(f"The task {name} was deleted from queue {queue}.")
