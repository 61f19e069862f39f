"""What the verbs share that work on the embedded engine's queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.management.base import CommandError, CommandParser
from django.db import Error

if TYPE_CHECKING:
    from soc_tasks.backends.embedded import EmbeddedBackend


def open_backend() -> EmbeddedBackend:
    """Return the embedded backend.

    Raises:
        CommandError: another backend is set, or its tables are missing.
    """
    from soc_tasks.backends import get_backend
    from soc_tasks.backends.embedded import EmbeddedBackend
    from soc_tasks.conf import get_settings
    from soc_tasks.errors import SocTasksError

    try:
        backend = get_backend()
        if not isinstance(backend, EmbeddedBackend):
            raise CommandError(
                f'This verb works on the embedded engine, and SOC_TASKS["BACKEND"] is {get_settings().backend!r}. '
                "Tasks on Google Cloud Tasks are shown and steered by `gcloud tasks`; on your own machine "
                "`manage.py tasks sandbox` runs them."
            )
        ready = backend.store.is_ready()
    except (SocTasksError, Error) as error:
        raise CommandError(str(error)) from error
    if not ready:
        raise CommandError(
            f'The engine\'s tables are missing on the database {backend.store.alias!r}. Put "soc_tasks.engine" into '
            f"INSTALLED_APPS and run: manage.py migrate --database {backend.store.alias}"
        )
    return backend


def add_task_arguments(parser: CommandParser) -> None:
    """Add what names a task: its queue may be left out for "default"."""
    parser.add_argument("name", help="name of the task")
    parser.add_argument("--queue", default="default", help='its queue (default: "default")')


def check_queue(backend: EmbeddedBackend, queue: str) -> None:
    """Raise CommandError unless a queue is configured, or has tasks of an earlier configuration."""
    from soc_tasks.errors import QueueNotFoundError

    try:
        backend.check_queue(queue)
    except QueueNotFoundError as error:
        if queue not in {record.name for record in backend.list_queues()}:
            raise CommandError(str(error)) from error


def no_such_task(queue: str, name: str) -> CommandError:
    """Return the error for a task that is not there."""
    return CommandError(
        f"There is no task {name!r} in queue {queue!r}. It may have ended; `manage.py tasks list` shows those "
        "that have not, `manage.py tasks failed` those that failed for good."
    )
