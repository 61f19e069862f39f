"""Signals of a task's life, and the log line of a task that is queued (logger "soc_tasks").

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

from soc_tasks.logs import Facts

logger = logging.getLogger("soc_tasks")

task_enqueued = Signal()
task_started = Signal()
task_finished = Signal()


def _log_enqueued(*, task: Any, **_: Any) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        path = task.path.partition("?")[0]
        logger.debug("queued %s", Facts(queue=task.queue, task=task.name, path=path, bytes=len(task.body)))


task_enqueued.connect(_log_enqueued, dispatch_uid="soc_tasks.log")
