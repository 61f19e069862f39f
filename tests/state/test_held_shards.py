"""Shards that several transactions want at a time, on every database."""

from __future__ import annotations

import threading

import pytest
from django.db import connections

from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.databases import VENDORS, on_every_database

RUN = "0123456789abcdef" * 2


@pytest.fixture
def run(engine_database):
    shards = [ShardRecord(iteration=RUN, index=index, cursor=f"k{index}") for index in range(3)]
    get_state().create_iteration(IterationRecord(id=RUN, name="run", unfinished=3), shards)


@on_every_database
def test_a_free_shard_is_held_beside_another(run):
    state = get_state()
    with state.locked_shard(RUN, 0):
        shard = state.lock_free_shard(RUN, 2)
        assert (shard.index, shard.cursor) == (2, "k2")
        shard.cursor = "next"
        state.save_shard(shard)
        assert state.lock_free_shard(RUN, 9) is None
    assert [shard.cursor for shard in state.list_shards(RUN)] == ["k0", "k1", "next"]


@pytest.mark.parametrize("engine_database", VENDORS[1:], indirect=True)
def test_one_that_another_holds_is_not_waited_for_and_spoils_nothing(run):
    state, held, done = get_state(), threading.Event(), threading.Event()

    def hold():
        try:
            with get_state().locked_shard(RUN, 1):
                held.set()
                done.wait(20)
        finally:
            connections.close_all()

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert held.wait(20)
        with state.locked_shard(RUN, 0) as shard:
            assert state.lock_free_shard(RUN, 1) is None
            assert state.lock_free_shard(RUN, 2) is not None
            shard.cursor = "next"
            state.save_shard(shard)
    finally:
        done.set()
        other.join()
    assert state.list_shards(RUN)[0].cursor == "next"
    with state.atomic():
        assert state.lock_free_shard(RUN, 1) is not None
