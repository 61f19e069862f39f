"""Iterations and shards: created once, changed under lock, looked after."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from django.utils import timezone

from soc_tasks import Iteration
from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.contracts.state_records import OTHER, RUN, make_message, undone


class IterationsContract:
    """Assertions on `state`."""

    def test_an_iteration_is_created_once(self, state):
        first = IterationRecord(id=RUN, name="first", options={"a": [1]})
        assert state.create_iteration(first, [ShardRecord(iteration=RUN, index=0)])
        second = IterationRecord(id=RUN, name="second")
        assert not state.create_iteration(second, [ShardRecord(iteration=RUN, index=0)])
        assert (state.get_iteration(RUN).name, state.get_iteration(RUN).options) == ("first", {"a": [1]})
        assert len(state.list_shards(RUN)) == 1
        assert Iteration.get(RUN).name == "first"

    def test_all_that_is_known_of_a_shard_is_kept(self, state, run):
        now = state.now().replace(microsecond=7)
        kept = ShardRecord(
            iteration=run, index=0, start="a", end="z", cursor="k", context='{"x": "ü"}', step=3, epoch=2, owner="me",
            until=now, status="done", attempts=4, done=5, failed=6, halved=2, rate=1.5, batch_size=7,
            expected=9, wants=1, drained=True, hold="h", progressed_at=now, error="e",
        )  # fmt: skip
        with state.atomic():
            state.save_shard(kept)
        assert state.list_shards(run)[0] == kept

    def test_a_context_of_size_is_kept(self, state, run):
        text = '{"x": "' + "ü, " * 300_000 + '"}'
        with state.locked_shard(run, 0) as shard:
            shard.context = text
            state.save_shard(shard)
        assert state.list_shards(run)[0].context == text

    def test_a_locked_shard_is_changed_or_left(self, state, run):
        with state.locked_shard(run, 0) as shard:
            shard.cursor, shard.done = "next", 3
            state.save_shard(shard)
        with undone(state.locked_shard(run, 0)) as shard:
            shard.cursor = "lost"
            state.save_shard(shard)
        assert [shard.cursor for shard in state.list_shards(run)] == ["next", "k1"]
        with state.locked_shard(run, 9) as shard:
            assert shard is None

    def test_what_a_transaction_has_written_it_sees(self, state, run):
        with state.locked_shard(run, 0) as shard:
            shard.done = 3
            state.save_shard(shard)
            assert state.list_shards(run)[0].done == 3
            state.finish_shard(run)
            assert state.get_iteration(run).unfinished == 1
            record = state.get_iteration(run, lock=True)
            record.status = "succeeded"
            state.save_iteration(record)
            assert (state.get_iteration(run).status, state.get_iteration(run).unfinished) == ("succeeded", 1)
            state.add_shard(ShardRecord(iteration=run, index=2))
            assert [shard.index for shard in state.list_shards(run)] == [0, 1, 2]

    def test_a_part_of_a_transaction_is_undone_by_itself(self, state, run):
        with state.locked_shard(run, 0) as shard:
            shard.cursor = "kept"
            state.save_shard(shard)
            with undone(state.atomic()):
                shard.cursor = "lost"
                state.save_shard(shard)
                state.finish_shard(run)
            assert state.list_shards(run)[0].cursor == "kept"
        assert state.list_shards(run)[0].cursor == "kept"
        assert state.get_iteration(run).unfinished == 2

    def test_a_lease_is_renewed_by_its_owner_alone(self, state, run):
        until = timezone.now() + timedelta(seconds=60)
        with state.locked_shard(run, 0) as shard:
            shard.owner = "me"
            state.save_shard(shard)
        assert state.renew_lease(run, 0, "me", until)
        assert not state.renew_lease(run, 0, "you", until)
        assert not state.renew_lease(run, 7, "me", until)
        assert state.list_shards(run)[0].until == until

    def test_shards_are_counted_down(self, state, run):
        with state.atomic():
            assert [state.finish_shard(run) for _ in range(2)] == [1, 0]
        assert state.get_iteration(run).unfinished == 0

    def test_resumed_shards_get_a_new_epoch_unless_they_are_done(self, state, run):
        with state.locked_shard(run, 0) as shard:
            shard.status = "done"
            state.save_shard(shard)
        with state.atomic():
            state.lock_shards(run)
            [resumed] = state.resume_shards(run)
        assert (resumed.index, resumed.epoch, resumed.step, resumed.status) == (1, 2, 2, "running")
        assert state.list_shards(run)[1].epoch == 2

    def test_the_name_of_a_slices_task_is_noted_once(self, state, run):
        message = make_message()
        assert state.note_task(message, "a")
        assert not state.note_task(message, "b", "")
        assert state.note_task(message, "b", "a")
        assert state.list_shards(run)[1].task == "b"
        for other in ({"step": 1}, {"epoch": 0}, {"shard": 7}):
            assert not state.note_task(make_message(**other), "c")
        assert state.list_shards(run)[1].task == "b"
        with state.atomic():
            state.lock_shards(run)
            state.resume_shards(run)
        assert state.list_shards(run)[1].task == ""

    def test_dropped_shards_are_gone(self, state, run):
        with state.atomic():
            state.drop_shards(run)
        assert state.list_shards(run) == []
        with state.atomic():
            state.add_shard(ShardRecord(iteration=run, index=0))
        assert [shard.index for shard in state.list_shards(run)] == [0]

    def test_iterations_are_listed_newest_first_and_their_shards_by_index(self, state, run):
        state.create_iteration(
            IterationRecord(id=OTHER, name="later"), [ShardRecord(iteration=OTHER, index=i) for i in range(12)]
        )
        assert [record.id for record in state.list_iterations()] == [OTHER, run]
        assert [record.id for record in state.list_iterations(limit=1)] == [OTHER]
        shards = state.list_shards(run, OTHER, "d" * 32)
        assert [shard.index for shard in shards if shard.iteration == OTHER] == list(range(12))
        assert {shard.iteration for shard in shards} == {run, OTHER}

    def test_options_are_written_by_themselves(self, state, run):
        record = state.get_iteration(run)
        record.options, record.status = {"b": 2}, "paused"
        state.save_options(record)
        assert (state.get_iteration(run).options, state.get_iteration(run).status) == ({"b": 2}, "running")

    def test_shards_without_progress_are_found_once(self, state, run):
        later = state.now() + timedelta(seconds=1)
        assert state.touch_stuck_shards(state.now() - timedelta(hours=1), 10) == []
        assert [shard.index for shard in state.touch_stuck_shards(later, 10)] == [0, 1]
        assert state.touch_stuck_shards(state.now() - timedelta(seconds=30), 10) == []
        assert len(state.touch_stuck_shards(state.now() + timedelta(seconds=1), 1)) == 1

    def test_shards_that_are_leased_or_do_not_run_are_not_stuck(self, state, run):
        with state.locked_shard(run, 0) as shard:
            shard.owner, shard.until = "me", state.now() + timedelta(hours=1)
            state.save_shard(shard)
        with state.locked_shard(run, 1) as shard:
            shard.status = "failed"
            state.save_shard(shard)
        later = state.now() + timedelta(seconds=1)
        assert state.touch_stuck_shards(later, 10) == []
        with state.locked_shard(run, 0) as shard:
            shard.owner, shard.until = "", None
            state.save_shard(shard)
        assert [shard.index for shard in state.touch_stuck_shards(state.now() + timedelta(seconds=1), 10)] == [0]

    def test_shards_of_a_paused_iteration_are_stuck_once_it_is_resumed(self, state, run):
        record = state.get_iteration(run)
        record.status = "paused"
        state.save_iteration(record)
        assert state.touch_stuck_shards(state.now() + timedelta(seconds=1), 10) == []
        record.status = "running"
        state.save_iteration(record)
        with state.atomic():
            state.resume_shards(run)
        assert len(state.touch_stuck_shards(state.now() + timedelta(seconds=1), 10)) == 2

    def test_the_concurrency_of_an_iteration_is_kept(self, state, run):
        assert (state.get_iteration(run).concurrency, state.get_iteration(run).parked) == (None, 0)
        with state.atomic():
            record = state.get_iteration(run, lock=True)
            record.concurrency, record.parked, record.status = 3, 1, "unknown"
            state.save_concurrency(record)
            state.set_wanted(run, True)
        record = state.get_iteration(run)
        assert (record.concurrency, record.parked, record.wanted, record.status) == (3, 1, True, "running")

    def test_one_more_shard_is_changed_with_the_first(self, state, run):
        with state.locked_shard(run, 0) as shard:
            other = state.lock_free_shard(run, 1)
            shard.cursor, other.cursor = "a", "b"
            state.save_shard(shard)
            state.save_shard(other)
            assert state.lock_free_shard(run, 7) is None
        assert [shard.cursor for shard in state.list_shards(run)] == ["a", "b"]

    def test_no_iteration_has_an_empty_id(self, state, run):
        with state.atomic():
            assert state.get_iteration("") is state.get_iteration("", lock=True) is None

    def test_an_iteration_that_is_held_stays_as_it_is(self, state, run):
        before = state.get_iteration(run)
        with state.atomic():
            assert state.get_iteration(run, lock=True) == before
            assert state.finish_shard(run) == 1
            assert state.get_iteration(run, lock=True).unfinished == 1
        assert state.get_iteration(run) == dataclasses.replace(before, unfinished=1)
        assert len(state.list_shards(run)) == 2
