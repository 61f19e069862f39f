"""The state on an emulator of Datastore, for tests."""

from __future__ import annotations

import pytest

from soc_tasks.state import get_state


@pytest.fixture
def state(kinds, settings):
    """Give the state, in the namespace of the test."""
    settings.SOC_TASKS = {"STATE": "datastore", "DATASTORE_NAMESPACE": kinds.namespace}
    return get_state()


@pytest.fixture
def client(state, kinds):
    """Give the client that what is written atomically is written with."""
    client = state.client
    client.edition = kinds.edition
    return client
