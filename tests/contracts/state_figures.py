"""Figures: what is counted, up to where, and what stands still."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from soc_tasks.state.base import IterationRecord, ShardRecord
from tests.contracts.state_records import OTHER, RUN, make_letter, make_task

HOUR = timedelta(hours=1)


class FiguresContract:
    """Assertions on `state`."""

    def test_dead_letters_are_counted_up_to_a_cap(self, state, keeper):
        assert state.count_dead_letters(10) == 0
        for _ in range(4):
            state.add_dead_letter(make_letter())
        assert (state.count_dead_letters(10), state.count_dead_letters(3)) == (4, 3)
        keeper.age("letter", state.list_dead_letters()[0].id, 1)
        since = datetime.now(UTC) - HOUR
        assert state.count_dead_letters(10, since=since) == 3
        assert state.count_dead_letters(2, since=since) == 2

    def test_held_tasks_are_counted_with_the_oldest(self, state, keeper):
        assert state.count_held(10) == (0, None)
        place = keeper.places[-1]
        made = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        state.hold_tasks([make_task(name="a", created=made), make_task(name="b")], place)
        assert state.count_held(10) == (2, made)
        assert state.count_held(1)[0] == 1

    def test_open_iterations_are_those_that_run_or_are_paused(self, state, run):
        state.create_iteration(
            IterationRecord(id=OTHER, name="other", status="paused"), [ShardRecord(iteration=OTHER, index=0)]
        )
        found = state.list_open_iterations(10)
        assert {(record.id, len(shards)) for record, shards in found} == {(RUN, 2), (OTHER, 1)}
        assert [shard.index for record, shards in found for shard in shards if record.id == RUN] == [0, 1]
        assert len(state.list_open_iterations(1)) == 1
        for status in ("succeeded", "cancelled", "failed"):
            with state.atomic():
                record = state.get_iteration(RUN, lock=True)
                record.status, record.finished = status, datetime.now(UTC)
                state.save_iteration(record)
            assert [record.id for record, _ in state.list_open_iterations(10)] == [OTHER]

    def test_stalled_are_running_shards_without_a_lease(self, state, run):
        now = state.now()
        for index, ago, until in ((0, HOUR, None), (1, HOUR, now + HOUR)):
            with state.locked_shard(RUN, index) as shard:
                shard.progressed_at, shard.until = now - ago, until
                state.save_shard(shard)
        before = now - HOUR / 2
        assert [shard.index for shard in state.list_stalled_shards(before, 10)] == [0]
        assert state.list_stalled_shards(now - 2 * HOUR, 10) == []
        # It only looks.
        assert [shard.index for shard in state.list_stalled_shards(before, 10)] == [0]
        with state.atomic():
            record = state.get_iteration(RUN, lock=True)
            record.status = "paused"
            state.save_iteration(record)
        assert state.list_stalled_shards(before, 10) == []
