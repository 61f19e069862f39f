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
from collections.abc import Iterable
from typing import Any

from django.dispatch import Signal

from soc_tasks.logs import Facts
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks")

task_enqueued = Signal()
task_started = Signal()
task_finished = Signal()


def tell_enqueued(sender: Any, tasks: Iterable[Task]) -> None:
    """Log tasks that a backend took, and tell those who listen; nothing is done for each where nobody does."""
    logs, listened = logger.isEnabledFor(logging.DEBUG), bool(task_enqueued.receivers)
    if not (logs or listened):
        return
    for task in tasks:
        if logs:
            path = task.path.partition("?")[0]
            logger.debug("queued %s", Facts(queue=task.queue, task=task.name, path=path, bytes=len(task.body)))
        if listened:
            task_enqueued.send_robust(sender=sender, task=task)
