"""Tools to test tasks with: no server, no port, no emulator, no waiting.

Tasks are kept in memory and run when `process_task_queues()` says so: in this process and thread, through the URL conf
and the middleware, whatever their eta. Under TestCase, whose transaction never commits, what would have been committed
counts as committed.
"""

from __future__ import annotations

from soc_tasks.testing.queues import (
    TaskFailedBehaviour,
    TaskFailedError,
    TaskQueues,
    TaskTestCase,
    TaskTestMixin,
    TaskTransactionTestCase,
    memory_queues,
)
from soc_tasks.testing.resumability import Resumability

__all__ = [
    "Resumability",
    "TaskFailedBehaviour",
    "TaskFailedError",
    "TaskQueues",
    "TaskTestCase",
    "TaskTestMixin",
    "TaskTransactionTestCase",
    "memory_queues",
]
