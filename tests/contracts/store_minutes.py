"""The contract of a store: counts of attempts by minute, and queues that are counted up to a cap."""

from __future__ import annotations

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.tally import MINUTE, Tally
from soc_tasks.engine.verdicts import Outcome
from tests.engine.tasks import judged, make_task

HOUR = 60 * MINUTE


class MinutesContract:
    """What workers add up, and what is read of it."""

    def test_counts_of_a_minute_add_up(self, store, clock):
        minute = clock.now() - clock.now() % MINUTE
        store.add_minutes([MinuteRecord(minute, "mail", 3, 2, 1, 500), MinuteRecord(minute, "default", 1)])
        store.add_minutes([MinuteRecord(minute, "mail", 1, 0, 0, 40), MinuteRecord(minute + MINUTE, "mail", 7)])
        assert store.list_minutes(minute) == [
            MinuteRecord(minute, "default", 1),
            MinuteRecord(minute, "mail", 4, 2, 1, 540),
            MinuteRecord(minute + MINUTE, "mail", 7),
        ]
        assert store.list_minutes(minute + 1) == [MinuteRecord(minute + MINUTE, "mail", 7)]

    def test_names_of_queues_differ_by_case(self, store, clock):
        store.add_minutes([MinuteRecord(0, "mail", 1)])
        store.add_minutes([MinuteRecord(0, "MAIL", 1)])
        assert sorted(record.queue for record in store.list_minutes(0)) == ["MAIL", "mail"]

    def test_minutes_of_the_servers_queues_are_not_the_sites(self, store):
        store.add_minutes([MinuteRecord(0, "project/place/queue", 1), MinuteRecord(0, "mail", 1)])
        assert [record.queue for record in store.list_minutes(0)] == ["mail"]

    def test_the_sweep_forgets_minutes_after_two_days(self, store, clock):
        minute = clock.now() - clock.now() % MINUTE
        store.add_minutes(
            [MinuteRecord(minute - 48 * HOUR - MINUTE, "mail", 1), MinuteRecord(minute - 47 * HOUR, "m", 2)]
        )
        store.sweep(retention=86400)
        assert store.list_minutes(0) == [MinuteRecord(minute - 47 * HOUR, "m", 2)]

    def test_verdicts_are_counted_once_they_are_handed_over(self, store, clock, worker):
        store.add([make_task() for _ in range(5)])
        leased = store.exchange(worker, [], 5)
        tally = Tally()
        answers = [(200, ""), (200, "dead"), (500, ""), (500, "busy"), (500, "unknown")]
        verdicts = [
            judged(clock, task, status, outcome=outcome)
            for task, (status, outcome) in zip(leased, answers, strict=True)
        ]
        tally.count(verdicts, clock.now())
        minute = clock.now() - clock.now() % MINUTE
        assert store.list_minutes(0) == []
        assert tally.flush(store)
        assert store.list_minutes(0) == [MinuteRecord(minute, "default", 1, 2, 1)]
        assert not tally.flush(store)
        assert {verdict.outcome for verdict in verdicts} >= {Outcome.DONE, Outcome.RETRY, Outcome.BUSY, Outcome.UNKNOWN}

    def test_queues_are_counted_up_to_a_cap(self, store, clock, worker):
        store.add([make_task(queue="many") for _ in range(7)])
        store.add([make_task(queue="few"), make_task(queue="few")])
        clock.advance(5)
        few, many = store.list_queues(3)
        assert (few.name, few.due, few.capped) == ("few", 2, False)
        assert (many.name, many.due, many.capped) == ("many", 3, True)
        # The oldest is found without counting to it.
        assert (clock.now() - round(many.oldest.timestamp() * SECOND)) == 5 * SECOND
        assert [queue.due for queue in store.list_queues()] == [2, 7]

    def test_more_queues_than_one_query_counts(self, store):
        store.add([make_task(queue=f"q-{number:03}") for number in range(120)])
        assert [(queue.name, queue.due) for queue in store.list_queues(10)] == [
            (f"q-{number:03}", 1) for number in range(120)
        ]

    def test_heartbeats_are_those_of_the_sites_workers(self, store, clock, worker):
        first = clock.now()
        clock.advance(3)
        store.join("here", 2, 2)
        assert store.list_heartbeats() == [first, clock.now()]
        store.serves = True
        try:
            store.join("here", 3, 3)
        finally:
            store.serves = False
        assert len(store.list_heartbeats()) == 2
