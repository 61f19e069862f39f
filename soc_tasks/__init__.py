"""soc_tasks: tasks are ordinary Django views that a queue calls by POST.

Start one from anywhere, with `startTask(url, context, queue)`:

    from soc_tasks import startTask
    startTask("email_all", {"subject": "Hello"}, url_kwargs={"slug": "gsoc"})

A task is a view; raise FatalTaskError to give up, anything else to be tried again:

    from soc_tasks import task

    @task
    def rebuild_index(request, slug): ...

Work through a whole table, batch by batch, for as long as it takes:

    from soc_tasks import iterative_task

    @iterative_task(Student)
    def email_all(request, entities, context, slug): ...

Or have a function called later, with its arguments as they are:

    from soc_tasks import defer
    defer(send_welcome, student, _countdown=60)

Names are loaded on first use (PEP 562): importing this package imports neither Django's models nor google's libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soc_tasks.errors import BackendUnavailableError as BackendUnavailableError
    from soc_tasks.errors import ConfigurationError as ConfigurationError
    from soc_tasks.errors import DeadlineExceededError as DeadlineExceededError
    from soc_tasks.errors import DoNotRepeatException as DoNotRepeatException
    from soc_tasks.errors import EnqueueError as EnqueueError
    from soc_tasks.errors import FatalTaskError as FatalTaskError
    from soc_tasks.errors import NotSupportedError as NotSupportedError
    from soc_tasks.errors import PayloadError as PayloadError
    from soc_tasks.errors import PermanentTaskFailure as PermanentTaskFailure
    from soc_tasks.errors import QueueNotFoundError as QueueNotFoundError
    from soc_tasks.errors import SingularTaskFailure as SingularTaskFailure
    from soc_tasks.errors import SocTasksError as SocTasksError
    from soc_tasks.errors import TaskAlreadyExistsError as TaskAlreadyExistsError
    from soc_tasks.errors import TaskTooLargeError as TaskTooLargeError
    from soc_tasks.logic.batches import DatastoreLogic as DatastoreLogic
    from soc_tasks.logic.batches import ModelLogic as ModelLogic
    from soc_tasks.logic.batches import register_logic as register_logic
    from soc_tasks.logic.deferred import defer as defer
    from soc_tasks.logic.deferred import defer_iteration_with_finalize as defer_iteration_with_finalize
    from soc_tasks.logic.deferred import get_deferred_shard_index as get_deferred_shard_index
    from soc_tasks.logic.iterations import Iteration as Iteration
    from soc_tasks.logic.payloads import register_codec as register_codec
    from soc_tasks.logic.tasks import startTask as startTask
    from soc_tasks.logic.tasks import startTasks as startTasks
    from soc_tasks.logic.timekeeper import Timekeeper as Timekeeper
    from soc_tasks.logic.write_back import write_back as write_back
    from soc_tasks.values import Hold as Hold
    from soc_tasks.values import RetryOptions as RetryOptions
    from soc_tasks.values import TaskHandle as TaskHandle
    from soc_tasks.values import TaskInfo as TaskInfo
    from soc_tasks.values import TaskRequest as TaskRequest
    from soc_tasks.views.access import from_cron as from_cron
    from soc_tasks.views.access import from_queue as from_queue
    from soc_tasks.views.access import has_permission as has_permission
    from soc_tasks.views.access import is_in_cron as is_in_cron
    from soc_tasks.views.access import is_in_task as is_in_task
    from soc_tasks.views.access import staff as staff
    from soc_tasks.views.access import superuser as superuser
    from soc_tasks.views.access import task_execution_count as task_execution_count
    from soc_tasks.views.access import task_name as task_name
    from soc_tasks.views.access import task_only as task_only
    from soc_tasks.views.access import task_or_superuser_only as task_or_superuser_only
    from soc_tasks.views.access import task_queue_name as task_queue_name
    from soc_tasks.views.access import task_retry_count as task_retry_count
    from soc_tasks.views.decorators import iterative_task as iterative_task
    from soc_tasks.views.decorators import task as task
    from soc_tasks.views.responses import repeatTask as repeatTask
    from soc_tasks.views.responses import terminateTask as terminateTask

#: Where each name lives, in the groups of API.
_MODULES = {
    "soc_tasks.logic.tasks": ("startTask", "startTasks"),
    "soc_tasks.views.responses": ("terminateTask", "repeatTask"),
    "soc_tasks.views.decorators": ("task", "iterative_task"),
    "soc_tasks.logic.deferred": ("defer", "defer_iteration_with_finalize", "get_deferred_shard_index"),
    "soc_tasks.logic.payloads": ("register_codec",),
    "soc_tasks.logic.iterations": ("Iteration",),
    "soc_tasks.logic.batches": ("DatastoreLogic", "ModelLogic", "register_logic"),
    "soc_tasks.logic.timekeeper": ("Timekeeper",),
    "soc_tasks.logic.write_back": ("write_back",),
    "soc_tasks.values": ("Hold", "RetryOptions", "TaskHandle", "TaskInfo", "TaskRequest"),
    "soc_tasks.views.access": (
        "from_queue",
        "from_cron",
        "superuser",
        "staff",
        "has_permission",
        "task_only",
        "task_or_superuser_only",
        "is_in_task",
        "is_in_cron",
        "task_name",
        "task_queue_name",
        "task_retry_count",
        "task_execution_count",
    ),
    "soc_tasks.errors": (
        "SocTasksError",
        "EnqueueError",
        "TaskAlreadyExistsError",
        "TaskTooLargeError",
        "QueueNotFoundError",
        "BackendUnavailableError",
        "FatalTaskError",
        "PermanentTaskFailure",
        "SingularTaskFailure",
        "PayloadError",
        "NotSupportedError",
        "DeadlineExceededError",
        "ConfigurationError",
        "DoNotRepeatException",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - a list of str
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
