"""Fixtures for all tests; what tests may lack is in requirements.py."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester", "tests.requirements", "tests.databases", "tests.emulators", "tests.figures"]


def pytest_collection_modifyitems(config, items):
    """Leave tests out that take minutes, unless `-m` names them."""
    if "long" in config.option.markexpr:
        return
    kept = [item for item in items if item.get_closest_marker("long") is None]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long") is not None])
        items[:] = kept


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
def called():
    """Empty what the functions to be deferred remember, and give the list of their calls."""
    from tests.specimen import functions

    functions.calls.clear()
    return functions.calls


@pytest.fixture
def narrow(settings):
    """Let no arguments of size travel in a task."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
