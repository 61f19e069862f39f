"""What the API refuses, with the service's codes and words.

The words were recorded from the service, unless it says "ours".
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Help(NamedTuple):
    """A link that goes with an error."""

    description: str
    url: str


class ApiError(Exception):
    """An RPC is refused.

    Args:
        code: name of the gRPC status code.
        message: what the client is told.
        link: where it can read more.
    """

    def __init__(self, code: str, message: str, link: Help | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.link = link


_REFERENCE: Final = "https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues"
_QUEUE_HELP: Final = Help("Definition of queue name", f"{_REFERENCE}#Queue.FIELDS.name")
_TASK_HELP: Final = Help("Definition of task ID", f"{_REFERENCE}.tasks#Task.FIELDS.name")


def invalid(message: str, link: Help | None = None) -> ApiError:
    """Return the error for an argument that cannot be."""
    return ApiError("INVALID_ARGUMENT", message, link)


def bad_queue_name() -> ApiError:
    """Return the error for a queue name of another form."""
    return invalid(
        'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>".', _QUEUE_HELP
    )


def bad_task_name() -> ApiError:
    """Return the error for a task name of another form (ours, after that for queues)."""
    return invalid(
        'Task name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>/tasks/'
        '<TASK_ID>".',
        _TASK_HELP,
    )


def bad_task_id(given: str) -> ApiError:
    """Return the error for a task id with other characters, or too many."""
    return invalid(
        f'Task ID "{given}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or underscores (_). '
        "Task ID must between 1 and 500 characters.",
        _TASK_HELP,
    )


def no_queue() -> ApiError:
    """Return the error for a queue that is not there, or was deleted."""
    return ApiError(
        "NOT_FOUND",
        "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize.",
    )


def not_found() -> ApiError:
    """Return the error for anything else that never was."""
    return ApiError("NOT_FOUND", "Requested entity was not found.")


def task_ended() -> ApiError:
    """Return the error for a task that was there a while ago."""
    return ApiError(
        "NOT_FOUND",
        "The task no longer exists, though a task with this name existed recently. "
        "The task either successfully completed or was deleted.",
    )


def queue_exists() -> ApiError:
    """Return the error for a queue that is there already."""
    return ApiError("ALREADY_EXISTS", "Queue already exists")


def queue_existed() -> ApiError:
    """Return the error for the name of a queue that was deleted a while ago."""
    return ApiError(
        "FAILED_PRECONDITION",
        "The queue cannot be created because a queue with this name existed too recently.",
    )


def task_exists() -> ApiError:
    """Return the error for the name of a task that waits or runs."""
    return ApiError("ALREADY_EXISTS", "Requested entity already exists")


def task_existed() -> ApiError:
    """Return the error for the name of a task that ended a while ago (as it stands in public reports)."""
    return ApiError(
        "ALREADY_EXISTS",
        "The task cannot be created because a task with this name existed too recently. For more information about "
        "task de-duplication see https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues."
        "tasks/create#body.request_body.FIELDS.task.",
    )


def absent(message: str) -> ApiError:
    """Return the error for what the service has and this server has not (ours)."""
    return ApiError("UNIMPLEMENTED", message)
