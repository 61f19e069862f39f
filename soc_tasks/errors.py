"""Every error of soc_tasks, shaped by what the one who catches it will do.

SocTasksError
├─ EnqueueError                     the task was not accepted
│  ├─ TaskAlreadyExistsError        its name was used before
│  ├─ TaskTooLargeError             it would not fit
│  ├─ QueueNotFoundError            (also ValueError)
│  └─ BackendUnavailableError       safe to call again
├─ FatalTaskError                   raised in a task: stop, never retry
│  └─ PermanentTaskFailure
├─ SingularTaskFailure              raised in a task: try again, quietly
├─ PayloadError                     (also TypeError) cannot travel as JSON
├─ NotSupportedError                this backend cannot do that
├─ DeadlineExceededError            the time is used up
└─ ConfigurationError               (also ImproperlyConfigured)

DoNotRepeatException                control flow, not an error: ends `repeat_in`
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured


class SocTasksError(Exception):
    """Something went wrong in soc_tasks."""

    def __init__(self, *args: object) -> None:
        """Use the class's docstring as the message where none is given."""
        super().__init__(*(args or ((self.__doc__ or "").strip(),)))


class EnqueueError(SocTasksError):
    """The task was not accepted."""


class TaskAlreadyExistsError(EnqueueError):
    """A task with this name exists, or existed a short while ago."""


class TaskTooLargeError(EnqueueError):
    """The task is larger than the queue or the site's own upload settings take."""


class QueueNotFoundError(EnqueueError, ValueError):
    """There is no queue of this name."""


class BackendUnavailableError(EnqueueError):
    """The queue could not be reached; it is safe to call again."""


class FatalTaskError(SocTasksError):
    """The task can never succeed: stop, and do not try again."""


class PermanentTaskFailure(FatalTaskError):  # noqa: N818 - djangae's name
    """The task failed for good; djangae's name for FatalTaskError."""


class SingularTaskFailure(SocTasksError):  # noqa: N818 - djangae's name
    """The task failed this once: try again, without noise in the log."""


class PayloadError(SocTasksError, TypeError):
    """A value cannot travel as JSON."""


class NotSupportedError(SocTasksError):
    """This backend cannot do that."""


class DeadlineExceededError(SocTasksError):
    """The time that the task had is used up."""


class ConfigurationError(SocTasksError, ImproperlyConfigured):
    """The settings are wrong."""


class DoNotRepeatException(Exception):  # noqa: N818 - Melange's name
    """Raised in an iterative task: this batch counts, and `repeat_in` is off."""
