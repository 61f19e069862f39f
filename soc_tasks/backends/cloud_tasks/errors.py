"""What the service's errors mean here, in one place, with what to do about each.

Codes and texts: google.rpc.Code, and what was recorded from the service.
"""

from __future__ import annotations

from typing import Any, Final

from soc_tasks.backends.base import RefusedForGoodError
from soc_tasks.errors import (
    BackendUnavailableError,
    ConfigurationError,
    EnqueueError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskTooLargeError,
)

#: Codes after which it is made again at once, a few times; the others need time that a request does not have.
AGAIN: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})


class ServiceError(Exception):
    """An error of the service, as its code and text.

    Args:
        code: name of the google.rpc code.
        text: what the service said.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text

    @classmethod
    def of(cls, error: Any) -> ServiceError:
        """Return the error of a gRPC call."""
        return cls(error.code().name, error.details() or "")


def translate(error: ServiceError, queue: str, what: str) -> EnqueueError | ConfigurationError:
    """Return what an error of CreateTask is called here.

    Args:
        error: what the service said.
        queue: name of the queue.
        what: how the task is called in messages.
    """
    code, text = error.code, error.text
    if code == "ALREADY_EXISTS":
        return TaskAlreadyExistsError(
            f"The name of {what} exists already, or existed a short while ago: Cloud Tasks keeps a name for up to 24 "
            f"hours after its task has ended, and for 9 days in a queue that queue.yaml made. ({text})"
        )
    if code == "NOT_FOUND":
        return QueueNotFoundError(
            f"Cloud Tasks knows no queue {queue!r}, or the service account of SERVICE_ACCOUNT does not exist. Make the "
            "queue with `manage.py tasks queues --apply`; a new one takes up to a minute, as does one that was idle "
            f"for 30 days. ({text})"
        )
    if code == "INVALID_ARGUMENT" and "size too large" in text:
        return TaskTooLargeError(f"Cloud Tasks refuses {what}: {text}. Keep the data in the database, pass its key.")
    if code in {"PERMISSION_DENIED", "UNAUTHENTICATED"}:
        return ConfigurationError(
            f"Cloud Tasks does not let this process create tasks in queue {queue!r}: its account needs the role "
            "roles/cloudtasks.enqueuer, and roles/iam.serviceAccountUser on the account of SERVICE_ACCOUNT; "
            "CLOUD_TASKS_PROJECT_ID and CLOUD_TASKS_LOCATION must be those of the queue. "
            f"({text})"
        )
    if code == "INVALID_ARGUMENT":
        return RefusedForGoodError(f"Cloud Tasks refuses {what}: {text}")
    if code == "FAILED_PRECONDITION":
        return EnqueueError(f"The queue {queue!r} takes no tasks in the state it is in: {text}")
    return BackendUnavailableError(f"Cloud Tasks did not take {what} ({error}). It is safe to call again.")
