"""What the verbs share that work on queues and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser
from django.db import Error

if TYPE_CHECKING:
    from soc_tasks.backends.base import BaseBackend
    from soc_tasks.backends.embedded import EmbeddedBackend
    from soc_tasks.engine.records import TaskRecord


def open_backend() -> BaseBackend:
    """Return the backend, ready to be asked.

    Raises:
        CommandError: its settings are wrong, or its tables are missing.
    """
    from soc_tasks.backends import get_backend
    from soc_tasks.backends.embedded import EmbeddedBackend
    from soc_tasks.errors import SocTasksError

    try:
        backend = get_backend()
        ready = not isinstance(backend, EmbeddedBackend) or backend.store.is_ready()
    except (SocTasksError, Error) as error:
        raise CommandError(str(error)) from error
    if isinstance(backend, EmbeddedBackend) and not ready:
        raise CommandError(
            f'The engine\'s tables are missing on the database {backend.store.alias!r}. Put "soc_tasks.engine" into '
            f"INSTALLED_APPS and run: manage.py migrate --database {backend.store.alias}"
        )
    return backend


def open_engine() -> EmbeddedBackend:
    """Return the embedded backend.

    Raises:
        CommandError: another backend is set, or its tables are missing.
    """
    from soc_tasks.backends.embedded import EmbeddedBackend
    from soc_tasks.conf import get_settings

    backend = open_backend()
    if not isinstance(backend, EmbeddedBackend):
        raise CommandError(
            f'This verb works on the embedded engine, and SOC_TASKS["BACKEND"] is {get_settings().backend!r}. '
            "Google Cloud Tasks calls its tasks itself; on your own machine `manage.py tasks sandbox` runs them."
        )
    return backend


def add_task_arguments(parser: CommandParser) -> None:
    """Add what names a task: its queue may be left out for "default"."""
    parser.add_argument("name", help="name of the task")
    parser.add_argument("--queue", default="default", help='its queue (default: "default")')


def check_queue(backend: BaseBackend, queue: str) -> None:
    """Raise CommandError unless a queue is configured, or has tasks of an earlier configuration."""
    from soc_tasks.errors import QueueNotFoundError

    try:
        backend.check_queue(queue)
    except QueueNotFoundError as error:
        if queue not in {record.name for record in backend.list_queues(1)}:
            raise CommandError(str(error)) from error


def no_such_task(queue: str, name: str) -> CommandError:
    """Return the error for a task that is not there."""
    return CommandError(
        f"There is no task {name!r} in queue {queue!r}. It may have ended; `manage.py tasks list` shows those "
        "that have not, `manage.py tasks failed` those that failed for good."
    )


def describe_record(record: TaskRecord) -> dict[str, Any]:
    """Return what lists tell of a task, ready for JSON; nothing of what it carries but the function that it calls."""
    from soc_tasks.logic.envelopes import read_function

    task = record.task
    return {
        "queue": task.queue,
        "name": task.name,
        "state": record.state,
        "due": record.due,
        "created": task.created,
        "path": task.path,
        "function": read_function(task.body),
        "attempts": record.attempts,
        "responses": record.responses,
        "status": record.status,
        "first_attempt": record.first_attempt,
        "crashes": record.crashes,
        "unknown_since": record.unknown,
    }
