"""Signals of a task's life, and the log lines that go with them (logger "soc_tasks").

`task_enqueued(sender, task)`: a backend took the task (inside an atomic block: it is queued if that commits).
`task_started(sender, task, request)`: a view is about to run; `task` is its `TaskInfo`.
`task_finished(sender, task, outcome, status, seconds, error)`: the answer is decided; `outcome` is one of
"done", "retry", "dead", "busy", "duplicate", "stale".

The sender is the backend's class for the first, the view function for the others. Bodies and contexts never go to the
log.
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

logger = logging.getLogger("soc_tasks")

task_enqueued = Signal()
task_started = Signal()
task_finished = Signal()


def _log_enqueued(*, task: Any, **_: Any) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("enqueued queue=%s task=%s path=%s bytes=%d", task.queue, task.name, task.path, len(task.body))


def _log_finished(*, task: Any, outcome: str, status: int, seconds: float, **_: Any) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "task queue=%s task=%s outcome=%s status=%d attempt=%d seconds=%.4f",
            task.queue,
            task.name,
            outcome,
            status,
            task.retry_count + 1,
            seconds,
        )


task_enqueued.connect(_log_enqueued, dispatch_uid="soc_tasks.log")
task_finished.connect(_log_finished, dispatch_uid="soc_tasks.log")
