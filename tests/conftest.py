"""Fixtures for all tests; what tests may lack is in requirements.py, and which of them a run has in shares.py."""

from __future__ import annotations

import os

import pytest

# Tests start programs by the hundred, beside servers and clients of gRPC in their own process. Its fork handlers stop
# its threads meanwhile: for forks that end in an exec, doc/fork_support.md says to leave them off.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

pytest_plugins = [
    "pytester", "tests.requirements", "tests.shares", "tests.databases", "tests.emulators", "tests.figures",
]  # fmt: skip


@pytest.fixture(autouse=True)
def site_calls():
    """Empty what the test site's views remember, and give the list of their calls."""
    from tests import site

    site.behaviours.clear()
    site.calls.clear()
    return site.calls


@pytest.fixture
def memory_backend(task_queues):
    """Give the memory backend of `task_queues`, with `tasks_now()`: what is queued and committed."""
    from soc_tasks.backends import get_backend

    backend = get_backend()

    def tasks_now():
        backend.collect()
        return list(backend.tasks)

    backend.tasks_now = tasks_now
    return backend


@pytest.fixture
def paused_iteration(task_queues):
    """Give an iteration over 25 rows that was paused in its first batch, of ten."""
    from soc_tasks import Iteration, startTask
    from tests import site
    from tests.specimen.models import Row

    Row.objects.bulk_create(Row() for _ in range(25))
    handle = startTask("rows")

    def pause(request, **_):
        Iteration.get(request.task.iteration).pause()

    site.behaviours["iterate"] = pause
    task_queues.process_task_queues()
    site.behaviours.clear()
    return Iteration.get(handle.iteration)


@pytest.fixture
def called():
    """Empty what the functions to be deferred remember, and give the list of their calls."""
    from tests.specimen import functions

    functions.calls.clear()
    return functions.calls


@pytest.fixture
def narrow(settings):
    """Let no arguments of size travel in a task."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
