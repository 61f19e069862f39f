"""`tasks purge`: empty a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from soc_tasks.management.verbs.opening import check_queue, open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_result

if TYPE_CHECKING:
    from soc_tasks.backends.base import BaseBackend

help = "Delete all tasks that are in a queue now. Their chosen names stay taken for a while."


def add_arguments(parser: CommandParser) -> None:
    """Add the queue, and the answer to the question."""
    parser.add_argument("queue", help="name of the queue")
    parser.add_argument("--no-input", action="store_false", dest="interactive", help="do not ask")
    add_json_option(parser, "print one JSON object")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Ask, and delete."""
    backend, queue = open_backend(), options["queue"]
    check_queue(backend, queue)
    if options["interactive"]:
        _ask(backend, queue)
    count = backend.purge(queue)
    text = "The tasks" if count is None else f"{count} tasks"
    write_result(command, options, f"{text} were deleted from queue {queue}.", queue=queue, deleted=count)


def _ask(backend: BaseBackend, queue: str) -> None:
    record = {record.name: record for record in backend.list_queues()}.get(queue)
    numbers = (0,) if record is None else (record.due, record.scheduled, record.running)
    known = [number for number in numbers if number is not None]
    there = f"all {sum(known)} tasks" if len(known) == len(numbers) else "all tasks"
    try:
        answer = input(f"Delete {there} of queue {queue}? [y/N] ")
    except EOFError:
        raise CommandError("There is nobody to ask; with --no-input the queue is purged without asking.") from None
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("Nothing was deleted.")
