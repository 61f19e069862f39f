"""The pytest plugin: a fixture `task_queues` with the methods of `soc_tasks.testing`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from soc_tasks.testing import TaskQueues


@pytest.fixture
def task_queues() -> Iterator[TaskQueues]:
    """Switch to the memory backend for a test, and give its queues."""
    from soc_tasks.testing import memory_queues  # Django may not be set up when plugins are loaded

    with memory_queues() as queues:
        yield queues
