"""A `Task` as the service takes it: protocol buffers without the client library's wrappers, which cost most of a call.

google.cloud.tasks_v2 (google-cloud-tasks 2.26) names the fields; their limits are recorded from the service.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from soc_tasks.backends.base import MAX_TASK_BYTES
from soc_tasks.conf import Settings, get_settings
from soc_tasks.errors import ConfigurationError, TaskTooLargeError
from soc_tasks.values import RetryOptions, Task

#: Nobody but App Engine's own front end sends this.
_VERSION_VARIABLE: Final = "GAE_VERSION"
#: What the service adds to a task that it keeps: name of the attempt, times, view. Counted so that what passes here
#: passes there.
KEPT_BYTES: Final = 64
#: Seconds that the service takes for a deadline: at least, and with HTTP targets at most. (Task.dispatch_deadline)
SHORTEST_DEADLINE: Final = 15.0
LONGEST_HTTP_DEADLINE: Final = 1800.0


@lru_cache(maxsize=1)
def messages() -> Any:
    """Return the classes of the messages that are used, loaded once."""
    from google.cloud.tasks_v2 import types

    class Messages:
        """Protocol buffers by the names of their wrappers."""

        create = types.CreateTaskRequest.pb()
        batch = types.BatchCreateTasksRequest.pb()
        batch_told = types.BatchCreateTasksMetadata.pb()

    return Messages


def write_request(task: Task, parent: str, settings: Settings | None = None) -> Any:
    """Return the message of CreateTask for a task.

    Args:
        task: what is to be made.
        parent: full name of its queue.
        settings: None: those in force.

    Raises:
        TaskTooLargeError: the service would refuse it.
        ConfigurationError: the target is HTTP and has no URL.
    """
    settings = get_settings() if settings is None else settings
    request = messages().create(parent=parent)
    message = request.task
    message.name = f"{parent}/tasks/{wire_name(task)}"
    if settings.target == "app_engine":
        _write_app_engine(message.app_engine_http_request, task, settings)
    else:
        _write_http(message.http_request, task, settings)
    if task.eta is not None:
        _write_moment(message.schedule_time, task.eta)
    if task.dispatch_deadline is not None:
        # What it does not take is brought into its range: the site keeps to a shorter one by itself (`time_left()`).
        most = LONGEST_HTTP_DEADLINE if settings.target == "http" else task.dispatch_deadline
        _write_seconds(message.dispatch_deadline, max(SHORTEST_DEADLINE, min(task.dispatch_deadline, most)))
    if task.retry is not None:
        write_retry(message.retry_config, task.retry)
    if (size := message.ByteSize() + KEPT_BYTES) > MAX_TASK_BYTES:
        raise TaskTooLargeError(
            f"The task for {task.path} has {size:,} bytes as Cloud Tasks keeps it; it takes at most "
            f"{MAX_TASK_BYTES:,}. Keep the data in the database and pass its key."
        )
    return request


@lru_cache(maxsize=256)
def route(name: str, value: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata by which the service's front end finds the queue; it refuses calls without it."""
    return (("x-goog-request-params", f"{name}={quote(value, safe='')}"),)


def wire_name(task: Task) -> str:
    """Return the task's id at the service: one that nobody chose is turned round.

    Ids that begin alike slow a queue down (Task.name in google.cloud.tasks_v2); ours begin with the time.
    """
    return task.name if task.named else task.name[::-1]


def _write_app_engine(message: Any, task: Task, settings: Settings) -> None:
    message.http_method = _POST
    message.relative_uri = task.path
    message.body = task.body
    message.headers.update(task.headers)
    version = task.version
    if version is None and task.service is None and settings.pin_version:
        version = os.environ.get(_VERSION_VARIABLE)
    for name, value in (("service", task.service), ("version", version), ("instance", task.instance)):
        if value is not None:
            setattr(message.app_engine_routing, name, value)


def _write_http(message: Any, task: Task, settings: Settings) -> None:
    base = find_base(task.service, settings)
    message.url = base + task.path
    message.http_method = _POST
    message.body = task.body
    message.headers.update(task.headers)
    if settings.service_account is not None:
        message.oidc_token.service_account_email = settings.service_account
        message.oidc_token.audience = base if task.service is not None else find_audience(settings)


def find_base(service: str | None, settings: Settings) -> str:
    """Return the base URL that tasks for a service go to; None: this one.

    Raises:
        ConfigurationError: the settings do not say.
    """
    services: Mapping[str, str] = settings.services
    base = settings.url if service is None else services.get(service)
    if base is None:
        where = "SOC_TASKS['URL']" if service is None else f"SOC_TASKS['SERVICES'][{service!r}]"
        raise ConfigurationError(f"{where} must hold the URL that Cloud Tasks calls: https://…")
    return base.rstrip("/")


def find_audience(settings: Settings) -> str:
    """Return the audience of the tokens that Cloud Tasks sends to this service, and that are demanded here."""
    return settings.audience or find_base(None, settings)


#: google.cloud.tasks_v2.HttpMethod.POST
_POST: Final = 1
#: Attempts that the service is asked for beyond those of the task. They run nothing but what keeps the dead letter: the
#: first does, unless its process is killed as well, and after the last one the service drops the task without a word.
SPARE_ATTEMPTS: Final = 3


def write_retry(message: Any, retry: RetryOptions) -> None:
    """Write retry options; the service gets some attempts more, by which an attempt without an end is seen."""
    if retry.max_attempts is not None:
        message.max_attempts = retry.max_attempts + (SPARE_ATTEMPTS if retry.max_attempts > 0 else 0)
    if retry.max_doublings is not None:
        message.max_doublings = retry.max_doublings
    for name in ("max_retry_duration", "min_backoff", "max_backoff"):
        if (value := getattr(retry, name)) is not None:
            _write_seconds(getattr(message, name), value)


def _write_seconds(message: Any, seconds: float) -> None:
    message.FromNanoseconds(round(seconds * 1_000_000_000))


def _write_moment(message: Any, moment: datetime) -> None:
    message.FromDatetime(moment)
