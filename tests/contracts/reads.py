"""What can be read of a store, compared with the model after every step of a history."""

from __future__ import annotations

import dataclasses

from hypothesis.stateful import RuleBasedStateMachine, invariant

from soc_tasks.engine.clock import from_micros
from soc_tasks.engine.records import QueueRecord
from tests.contracts.chances import CHOSEN, NAMES


def agree(store, model):
    """Hold what a store says to what the model says."""
    if store != model:
        pair = (store, model)
        if all(isinstance(said, list) for said in pair):
            pair = tuple(
                [one for one in said if one not in other] for said, other in zip(pair, pair[::-1], strict=True)
            )
        raise AssertionError(f"the store says: {pair[0]}\nthe model says: {pair[1]}")


class Reads(RuleBasedStateMachine):
    """The part of a machine that reads."""

    #: Counts what is read in turn.
    _steps = 0

    @invariant()
    def compare(self):
        self.tasks_are_where_they_should_be()
        # In turn, for time's sake: what is wrong there stays wrong.
        if self._steps % 2:
            self.names_are_taken_as_long_as_they_should_be()
        else:
            self.queues_and_workers_are_told()
        self.what_comes_next_is_known()

    def row(self, item):
        state = "unknown" if item.state == "waiting" and item.unknown else item.state
        first, unknown = (moment and from_micros(moment) for moment in (item.first_attempt, item.unknown))
        counts = (item.attempts, item.responses, first, item.status, item.crashes, unknown)
        return (*item.key, item.task.start_id, state, from_micros(item.since), *counts)

    @staticmethod
    def row_of(record):
        task = record.task
        counts = (
            record.attempts,
            record.responses,
            record.first_attempt,
            record.status,
            record.crashes,
            record.unknown,
        )
        return (task.queue, task.name, task.start_id, record.state, record.due, *counts)

    def tasks_are_where_they_should_be(self):
        rows = [self.row(item) for item in self.model.list_tasks()]
        agree([self.row_of(record) for record in self.store.list_tasks(limit=10_000)], rows)
        self._steps += 1
        queue = NAMES[self._steps % len(NAMES)]
        rows = [self.row(item) for item in self.model.list_tasks(queue)][:3]
        agree([self.row_of(record) for record in self.store.list_tasks(queue, limit=3)], rows)
        key = self.some_key(self._steps)
        record, item = self.store.get_task(*key), self.model.items.get(key)
        agree(record and self.row_of(record), item and self.row(item))
        agree(sorted(self.told), sorted(self.model.told))

    def names_are_taken_as_long_as_they_should_be(self):
        asked = [self.make((queue, name, None, None)) for queue in NAMES for name in CHOSEN]
        taken = [task for task in asked if self.model.is_taken((task.queue, task.name))]
        agree(self.store.find_taken(asked), taken)

    def queues_and_workers_are_told(self):
        # Whether a queue without tasks has a row is the store's own affair.
        records = {record.name: record for record in self.store.list_queues()}
        for queue in NAMES:
            record = records.pop(queue, QueueRecord(name=queue))
            agree(dataclasses.replace(record, pace=None), self.model.queue_record(queue))
            assert self.model.buckets[queue].may_go_at(record.pace)
        assert records == {}
        workers = {record.id: (record.heartbeat, record.beats) for record in self.store.list_workers()}
        agree(workers, self.model.workers)

    def what_comes_next_is_known(self):
        store, model, now = self.store, self.model, self.clock.now()
        among = (None, *({name} for name in NAMES), {"plain", "slow"}, set())[self._steps % 8]
        meant = set(NAMES) if among is None else among
        agree(store.is_empty(among), model.is_empty(meant))
        agree(store.count_retries(among), model.retries(meant))
        unknown = [item for item in model.items.values() if item.key[0] in meant and item.unknown is not None]
        agree(store.count_unknown(among), sum(item.state != "running" for item in unknown))
        suspects = model.suspects(meant)
        agree(store.next_suspect(among), suspects[0].order[0] if suspects else None)
        due, expected = store.next_due(among), model.next_due(meant)
        if due is None or expected is None or not expected[0] <= max(due, now) <= expected[1]:
            agree(due, expected)
