"""`tasks run-now`: run a task at once."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from soc_tasks.management.verbs.opening import add_task_arguments, no_such_task, open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_result

help = "Make a task due at once, past its schedule, the queue's pause and its rates; a worker must be running."


def add_arguments(parser: CommandParser) -> None:
    """Add what names the task."""
    add_task_arguments(parser)
    add_json_option(parser, "print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Make the task due."""
    backend, queue, name = open_backend(), options["queue"], options["name"]
    if not backend.run_now(queue, name):
        if backend.get_task(queue, name) is None:
            raise no_such_task(queue, name)
        raise CommandError(f"The task {name!r} of queue {queue!r} is running already.")
    write_result(command, options, f"The task {name} is due now.", queue=queue, name=name, due=True)
