"""`tasks purge`: empty a queue."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from soc_tasks.management.verbs.embedded import check_queue, open_backend

help = "Delete all tasks that are in a queue now. Their chosen names stay taken for a while."


def add_arguments(parser: CommandParser) -> None:
    """Add the queue, and the answer to the question."""
    parser.add_argument("queue", help="name of the queue")
    parser.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Ask, and delete."""
    backend, queue = open_backend(), options["queue"]
    check_queue(backend, queue)
    if options["interactive"]:
        counts = {record.name: record for record in backend.list_queues()}.get(queue)
        there = 0 if counts is None else sum(number or 0 for number in (counts.due, counts.scheduled, counts.running))
        try:
            answer = input(f"Delete all {there} tasks of queue {queue}? [y/N] ")
        except EOFError:
            raise CommandError("There is nobody to ask; with --no-input the queue is purged without asking.") from None
        if answer.strip().lower() not in {"y", "yes"}:
            raise CommandError("Nothing was deleted.")
    command.stdout.write(f"{backend.purge(queue)} tasks were deleted from queue {queue}.")
