"""Somebody who may do everything, and somebody who may only look."""

from __future__ import annotations

import pytest

from tests.views.console.users import ALL, log_in


@pytest.fixture
def operator():
    """Give a client of a user with all permissions."""
    return log_in(*ALL)


@pytest.fixture
def viewer():
    """Give a client of a user who may only look."""
    return log_in("view_console", name="viewer")
