"""Fixtures of the engine's tests: databases in files, which several connections and processes can open."""

from __future__ import annotations

import pytest

from soc_tasks.engine import hooks
from tests.engine import views
from tests.engine.running import ran, run  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def engine_site(settings):
    """Serve the engine's own views, and forget what they saw."""
    settings.ROOT_URLCONF = "tests.engine.urls"
    settings.MIDDLEWARE = []
    views.seen.clear()
    views.let_go.clear()
    while views.waiting.acquire(blocking=False):
        continue


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch):
    """Leave out what the library's other rooms registered."""
    for name in ("_exhausted", "_upkeep", "_sweeps", "_progress"):
        monkeypatch.setattr(hooks, name, [])


@pytest.fixture
def file_database(engine_database):
    """Give the alias of an empty SQLite database in a file, made the engine's."""
    return engine_database
