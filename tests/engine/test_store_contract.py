"""The contract of a store, on each kind of database."""

from __future__ import annotations

import pytest

from soc_tasks.engine.store import get_store
from tests.contracts.store import StoreContract
from tests.databases import on_every_database


@on_every_database
class TestContract(StoreContract):
    @pytest.fixture
    def store(self, engine_database, clock):
        store = get_store(engine_database)
        store.clock = clock
        return store
