"""What tests of iterations by views have in common."""

from __future__ import annotations

import pytest

from tests.specimen import iterating
from tests.specimen.models import Row


@pytest.fixture(autouse=True)
def nothing_noted():
    """Empty what the callbacks of iterations remember."""
    iterating.visits.clear()
    iterating.ends.clear()
    iterating.acts.clear()


@pytest.fixture
def rows():
    """Give forty rows to iterate over."""
    return Row.objects.bulk_create(Row() for _ in range(40))
