"""What every store does: the same assertions on each kind of database.

A test module subclasses `StoreContract` and gives the fixture `store`: an empty store whose clock is `clock`.
"""

from __future__ import annotations

import pytest

from soc_tasks.engine import hooks
from soc_tasks.engine.clock import FakeClock
from tests.contracts.store_claims import ClaimsContract
from tests.contracts.store_clock import ClockContract
from tests.contracts.store_console import ConsoleContract
from tests.contracts.store_limits import LimitsContract
from tests.contracts.store_minutes import MinutesContract
from tests.contracts.store_names import NamesContract
from tests.contracts.store_queues import QueuesContract
from tests.contracts.store_unknown import UnknownContract
from tests.contracts.store_workers import WorkersContract


class StoreContract(
    NamesContract,
    ClaimsContract,
    WorkersContract,
    QueuesContract,
    LimitsContract,
    UnknownContract,
    ConsoleContract,
    MinutesContract,
    ClockContract,
):
    """Assertions on `store`."""

    @pytest.fixture
    def clock(self):
        return FakeClock()

    @pytest.fixture
    def worker(self, store):
        return store.join("here", 1, 1)

    @pytest.fixture
    def told(self, monkeypatch):
        """What the hooks were told: (name, attempts, status)."""
        told = []
        monkeypatch.setattr(hooks, "_exhausted", [lambda task, attempts, status: told.append((task, attempts, status))])
        return told
