"""Leases of shards are renewed while a batch runs, and no longer than the queue waits for it."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from soc_tasks.logic import heartbeats


class State:
    def __init__(self):
        self.renewed = threading.Event()

    def now(self):
        return datetime.now(UTC)

    def renew_lease(self, *_):
        self.renewed.set()
        return False


@pytest.fixture
def state(monkeypatch, settings):
    settings.SOC_TASKS = {"LEASE_SECONDS": 0.03}
    state = State()
    monkeypatch.setattr(heartbeats, "get_state", lambda: state)
    return state


def test_a_lease_is_renewed_while_the_block_runs(state):
    with heartbeats.keep_lease("i", 0, "me", time.monotonic() + 60):
        assert state.renewed.wait(5)


def test_a_batch_past_its_deadline_is_not_kept(state):
    with heartbeats.keep_lease("i", 0, "me", time.monotonic() - 1):
        assert not state.renewed.wait(0.1)
