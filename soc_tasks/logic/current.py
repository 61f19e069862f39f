"""The task that runs in this context, for functions that tell of it; never process state, which threads share."""

from __future__ import annotations

from contextvars import ContextVar

from soc_tasks.values import TaskInfo

#: The task that is being run, or None.
current_task: ContextVar[TaskInfo | None] = ContextVar("soc_tasks_current_task", default=None)
#: Whether the call came from cron.
current_cron: ContextVar[bool] = ContextVar("soc_tasks_current_cron", default=False)
