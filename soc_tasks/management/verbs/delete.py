"""`tasks delete`: remove one task."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.opening import add_task_arguments, no_such_task, open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_result

help = "Delete a task. If it runs, this attempt goes on, and is the last."


def add_arguments(parser: CommandParser) -> None:
    """Add what names the task."""
    add_task_arguments(parser)
    add_json_option(parser, "print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Delete the task."""
    queue, name = options["queue"], options["name"]
    if not open_backend().delete_task(queue, name):
        raise no_such_task(queue, name)
    text = f"The task {name} was deleted from queue {queue}."
    write_result(command, options, text, queue=queue, name=name, deleted=True)
