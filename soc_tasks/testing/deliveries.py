"""Deliveries of kept tasks to the site, within the test's process, thread and transactions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.core.handlers.wsgi import WSGIHandler

from soc_tasks.backends import get_backend
from soc_tasks.backends.memory import MemoryBackend
from soc_tasks.conf import get_queues
from soc_tasks.engine.attempts import DEFAULT_DEADLINE
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.errors import ConfigurationError
from soc_tasks.logic.held_back import connections_kept
from soc_tasks.values import DEFAULT_RETRY, Answer, Delivery, Task


class _Handler(WSGIHandler):
    """Django's handler, but the test's own database connections stay as they are, as with Django's test client."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        with connections_kept():
            return super().__call__(environ, start_response)


def make_dispatcher() -> InProcessDispatcher:
    """Return what calls the site."""
    return InProcessDispatcher(_Handler())


def memory_backend() -> MemoryBackend:
    """Return the backend in force.

    Raises:
        ConfigurationError: it is not that of the test tools.
    """
    backend = get_backend()
    if not isinstance(backend, MemoryBackend):
        raise ConfigurationError(
            f"The test tools work on the memory backend, not on {type(backend).__name__}: use TaskTestCase, "
            "TaskTransactionTestCase or the fixture task_queues."
        )
    return backend


def make_delivery(task: Task, attempts: int = 0, previous_status: int | None = None) -> Delivery:
    """Return what the queue knows of a call.

    Args:
        task: what is delivered.
        attempts: how often it has failed.
        previous_status: what it answered the last time.
    """
    retry = (task.retry.over(_queue_retry(task)) if task.retry else _queue_retry(task)).over(DEFAULT_RETRY)
    return Delivery(
        queue=task.queue,
        name=task.name,
        retry_count=attempts,
        execution_count=attempts,
        eta=task.eta or task.created,
        previous_status=previous_status,
        is_last_attempt=retry.max_attempts is not None and 0 < retry.max_attempts <= attempts + 1,
        deadline=time.monotonic() + (task.dispatch_deadline or DEFAULT_DEADLINE),
    )


def has_failed(answer: Answer, delivery: Delivery) -> bool:
    """Tell whether a delivery failed, be it done with or not."""
    return not 200 <= answer.status < 300 or bool(delivery.failures)


def _queue_retry(task: Task) -> Any:
    queue = get_queues().get(task.queue)
    return DEFAULT_RETRY if queue is None else queue.retry
