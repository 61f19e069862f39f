"""The ledger of failed items: what is kept of them, in what order, and for how long."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from django.utils import timezone

from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.contracts.state_records import OTHER, RUN, make_item, undone


class LedgerContract:
    """Assertions on `state`."""

    @pytest.fixture
    def runs(self, state):
        for run in (RUN, OTHER):
            shards = [ShardRecord(iteration=run, index=index, done=10 * index, failed=index) for index in range(3)]
            state.create_iteration(IterationRecord(id=run, name="run", unfinished=3), shards)

    def test_items_are_listed_in_the_order_in_which_they_came(self, state, runs):
        with state.atomic():
            for number in range(5):
                state.add_failed_item(make_item(number))
                state.add_failed_item(make_item(number, OTHER))
        found = state.list_failed_items(RUN)
        assert [dataclasses.replace(item, id=0, created=None) for item in found] == [make_item(n) for n in range(5)]
        assert all(item.id and abs(item.created - timezone.now()) < timedelta(minutes=5) for item in found)
        assert state.list_failed_items(RUN, limit=2) == found[:2]
        assert state.list_failed_items(RUN, since=found[2].id) == found[2:]
        assert state.list_failed_items(RUN, since=found[1].id, limit=1) == [found[1]]
        ids = [found[3].id, found[1].id]
        assert state.list_failed_items(RUN, ids=ids) == [found[1], found[3]]
        assert state.list_failed_items(RUN, ids=ids, since=found[2].id) == [found[3]]
        # Not those of another run.
        assert state.list_failed_items(OTHER, ids=ids) == []
        assert state.count_failed_items(RUN) == (5, found[4].id)
        assert state.count_failed_items(RUN, ids=[*ids, found[4].id + 1000]) == (2, found[3].id)
        assert state.count_failed_items(RUN, ids=[]) == state.count_failed_items("d" * 32) == (0, 0)

    def test_items_are_dropped_once(self, state, runs):
        for number in range(3):
            state.add_failed_item(make_item(number))
        first, second, third = state.list_failed_items(RUN)
        assert state.drop_failed_items([first.id, third.id]) == 2
        assert state.drop_failed_items([first.id, second.id]) == 1
        assert state.drop_failed_items([]) == state.drop_failed_items([7]) == 0
        assert state.list_failed_items(RUN) == []

    def test_a_new_error_is_written(self, state, runs):
        state.add_failed_item(make_item())
        [item] = state.list_failed_items(RUN)
        again = dataclasses.replace(item, error_type="KeyError", error="new", traceback="c", attempts=2)
        # The rest does not change.
        state.save_failed_item(dataclasses.replace(again, key="x", entity="x"))
        assert state.list_failed_items(RUN) == [again]
        state.save_failed_item(dataclasses.replace(again, id=item.id + 1))
        assert state.list_failed_items(RUN) == [again]

    @pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "ü" * 10_000])
    def test_whatever_an_error_says_can_be_kept(self, state, runs, text):
        state.add_failed_item(make_item(entity=text, error_type=text, error=text, traceback=text))
        [item] = state.list_failed_items(RUN)
        assert item.error.isprintable()
        assert item.error.startswith(item.entity[:3])
        assert len(item.entity) <= 255

    def test_the_shards_are_summed_up(self, state, runs):
        assert state.sum_shards(RUN) == (30, 3)
        assert state.sum_shards("d" * 32) == (0, 0)
        with state.locked_shard(RUN, 1) as shard:
            shard.done, shard.failed = 12, 2
            state.save_shard(shard)
            assert state.sum_shards(RUN) == (32, 4)

    def test_an_item_is_there_if_its_transaction_commits(self, state, runs):
        with undone(state.atomic()):
            state.add_failed_item(make_item())
        assert state.count_failed_items(RUN) == (0, 0)

    def test_they_go_with_their_iteration(self, state, runs):
        state.add_failed_item(make_item())
        state.add_failed_item(make_item(iteration=OTHER))
        with state.atomic():
            record = state.get_iteration(RUN, lock=True)
            record.status, record.finished = "succeeded", timezone.now() - timedelta(days=999)
            state.save_iteration(record)
        assert state.sweep() > 0
        assert state.get_iteration(RUN) is None
        assert state.list_failed_items(RUN) == []
        assert len(state.list_failed_items(OTHER)) == 1
