"""Receipts, payloads, the outbox, and what is swept when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.state.transactions import atomic
from tests.contracts.state_records import make_letter, make_task, undone

FIRST, SECOND = "1" * 32, "2" * 32


def later(state, **more):
    return state.now() + timedelta(**more)


class KeepingContract:
    """Assertions on `state`, whose `keeper` lets time pass."""

    def test_a_receipt_is_given_once(self, state, keeper):
        for place in keeper.places:
            with atomic(place):
                assert state.claim_receipt("a", place)
                assert not state.claim_receipt("a", place)
                assert state.claim_receipt("b", place)
            # The transaction is whole: no error has spoilt it.
            with atomic(place):
                assert not state.claim_receipt("a", place)
                assert state.claim_receipt("c", place)

    def test_a_receipt_rolls_back_with_what_it_stands_for(self, state, keeper):
        for place in keeper.places:
            with undone(atomic(place)):
                state.claim_receipt("a", place)
            with atomic(place):
                assert state.claim_receipt("a", place)

    def test_held_tasks_come_back_whole_and_oldest_first(self, state, keeper):
        for place in keeper.places:
            tasks = [make_task(name=name, named=True) for name in ("b", "a")]
            state.hold_tasks(tasks, place)
            assert list(state.take_held(place)) == []
            keeper.end_leases(place)
            assert [task for _, task in state.take_held(place)] == tasks
            # Taken is leased again.
            assert list(state.take_held(place)) == []

    def test_held_tasks_are_known_by_name_and_dropped_by_id(self, state, keeper):
        for place in keeper.places:
            tasks = [make_task(name=name, body=b"x" * size) for name, size in (("b", 1), ("a", 1_000_000))]
            with atomic(place):
                ids = state.hold_tasks(tasks, place)
                assert state.find_held([make_task(name="b")], place) == {("default", "b")}
                assert place in state.open_outboxes()
            assert state.find_held([*tasks, make_task(name="c")], place) == {("default", "a"), ("default", "b")}
            state.drop_held(place, ids[:1])
            assert state.find_held(tasks, place) == {("default", "a")}
            keeper.end_leases(place)
            [(left, task)] = state.take_held(place)
            assert (left, task) == (ids[1], tasks[1])
            state.drop_held(place, ids)
            assert state.find_held(tasks, place) == set()

    def test_held_tasks_are_gone_with_their_transaction(self, state, keeper):
        for place in keeper.places:
            with undone(atomic(place)):
                state.hold_tasks([make_task(name="b")], place)
            assert state.find_held([make_task(name="b")], place) == set()

    # Payloads

    def test_nothing_is_kept_for_a_task_that_is_not_known(self, state):
        assert state.get_payload(FIRST) is None
        state.clear_payloads([FIRST])
        state.clear_payloads([])
        assert state.get_payload(FIRST) is None

    @pytest.mark.parametrize("data", [b"x", b"\x00\xff" * 10, bytes(range(256)) * 8192], ids=len)
    def test_what_is_kept_comes_back_as_bytes(self, state, data):
        state.keep_payload(FIRST, data, later(state, days=1))
        assert state.get_payload(FIRST) == data
        assert type(state.get_payload(FIRST)) is bytes
        assert state.get_payload(SECOND) is None
        state.clear_payloads([FIRST])
        assert state.get_payload(FIRST) == b""

    def test_what_is_cleared_is_empty_and_not_forgotten(self, state):
        for start_id in (FIRST, SECOND):
            state.keep_payload(start_id, b"x", later(state, days=1))
        state.clear_payloads([FIRST, "3" * 32])
        assert (state.get_payload(FIRST), state.get_payload(SECOND)) == (b"", b"x")
        state.clear_payloads([FIRST, SECOND])
        assert state.get_payload(SECOND) == b""

    def test_what_is_kept_commits_with_the_transaction_of_the_state(self, state):
        with undone(state.atomic()):
            state.keep_payload(FIRST, b"x", later(state, days=1))
        assert state.get_payload(FIRST) is None
        with state.atomic():
            state.keep_payload(FIRST, b"x", later(state, days=1))
        with undone(state.atomic()):
            state.clear_payloads([FIRST])
        assert state.get_payload(FIRST) == b"x"

    def test_nothing_is_kept_twice_for_one_task(self, state, keeper):
        state.keep_payload(FIRST, b"x", later(state, days=1))
        with pytest.raises(keeper.twice), state.atomic():
            state.keep_payload(FIRST, b"y", later(state, days=1))
        assert state.get_payload(FIRST) == b"x"

    # Retention

    def test_payloads_past_their_time_are_swept_cleared_or_not(self, state):
        for index, (days, cleared) in enumerate([(-1, False), (-1, True), (1, False), (1, True)]):
            state.keep_payload(str(index) * 32, b"x", later(state, days=days))
            if cleared:
                state.clear_payloads([str(index) * 32])
        assert state.sweep() == 2
        assert [state.get_payload(str(index) * 32) for index in range(4)] == [None, None, b"x", b""]
        assert state.sweep() == 0

    def test_a_payload_stays_as_long_as_its_iteration(self, state, run):
        data = bytes(range(256)) * 4096
        state.keep_payload(run, data, later(state, days=-1))
        for _ in range(2):
            state.sweep()
            assert state.get_payload(run) == data

    def test_what_is_past_the_retention_time_is_swept(self, state, run, keeper, settings):
        settings.SOC_TASKS = {**settings.SOC_TASKS, "RETENTION_DAYS": 10}
        for days in (9, 11):
            state.add_dead_letter(make_letter(error=str(days)))
            [letter] = [letter for letter in state.list_dead_letters() if letter.error == str(days)]
            keeper.age("letter", letter.id, days)
            for place in keeper.places:
                with atomic(place):
                    state.claim_receipt(str(days), place)
                keeper.age("receipt", str(days), days, place)
            key = f"{days:032}"
            state.create_iteration(IterationRecord(id=key, name="x"), [ShardRecord(iteration=key, index=0)])
            record = state.get_iteration(key)
            record.status, record.finished = "succeeded", later(state, days=-days)
            state.save_iteration(record)
        assert state.sweep() > 0
        assert [letter.error for letter in state.list_dead_letters()] == ["9"]
        for place in keeper.places:
            with atomic(place):
                assert [state.claim_receipt(str(days), place) for days in (9, 11)] == [False, True]
        # What still runs stays, however old it is.
        assert {record.id for record in state.list_iterations()} == {run, f"{9:032}"}
        assert state.list_shards(f"{11:032}") == []
        assert state.sweep() == 0
