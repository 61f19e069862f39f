"""The contract of a store: workers that come, beat and die, and the tasks that they leave behind."""

from __future__ import annotations

from datetime import timedelta

import pytest

from soc_tasks.engine import hooks
from soc_tasks.engine.clock import from_micros
from soc_tasks.engine.store.leases import ServedElsewhereError
from tests.engine.tasks import done, judged, make_task, names, returned


class WorkersContract:
    """What becomes of workers, and of suspects."""

    # Workers.

    def test_a_worker_that_was_struck_off_learns_it_and_claims_nothing(self, store, worker):
        assert store.beat(worker)
        (record,) = store.list_workers()
        assert (record.id, record.host, record.pid, record.born, record.beats) == (worker, "here", 1, 1, 1)
        store.reclaim(record, 1.0)
        store.add([make_task()])
        assert not store.beat(worker)
        assert store.exchange(worker, [], 5) == []
        assert store.join("here", 1, 1) != worker

    def test_a_worker_that_has_beaten_since_is_not_reclaimed(self, store, worker):
        store.add([make_task()])
        store.exchange(worker, [], 1)
        (record,) = store.list_workers()
        store.beat(worker)
        assert store.reclaim(record, 1.0) is None
        assert store.list_tasks()[0].state == "running"

    def test_leaving_returns_what_is_held(self, store, worker):
        store.add([make_task(), make_task()])
        store.exchange(worker, [], 2)
        store.leave(worker)
        assert store.list_workers() == []
        assert [record.state for record in store.list_tasks()] == ["waiting", "waiting"]

    def test_what_a_worker_holds_unknowingly_is_returned(self, store, worker):
        store.add([make_task(name="known"), make_task(name="unknown")])
        known, _ = store.exchange(worker, [], 2)
        assert store.release_unknown(worker, {known.id}) == 1
        assert {record.task.name: record.state for record in store.list_tasks()} == {
            "known": "running",
            "unknown": "waiting",
        }

    def test_there_is_one_server_beside_any_number_of_workers(self, store, worker, monkeypatch):
        assert store.find_server() is None
        monkeypatch.setattr(store, "serves", True)
        server = store.join("there", 2, 2)
        assert store.find_server()[:3] == (server, "there", 2)
        with pytest.raises(ServedElsewhereError):
            store.join("here", 3, 3)
        monkeypatch.setattr(store, "serves", False)
        assert store.join("here", 3, 3) not in {server, worker}
        store.leave(server)
        monkeypatch.setattr(store, "serves", True)
        again = store.join("here", 4, 4)
        store.reclaim(store.find_server(), 1.0)
        assert not store.beat(again)
        assert store.join("here", 5, 5) > again

    # Suspects.

    def crash(self, store, worker):
        (record,) = [record for record in store.list_workers() if record.id == worker]
        return store.reclaim(record, 1.0)

    def test_tasks_of_a_dead_worker_come_back_uncounted_and_alone(self, store, clock, worker):
        store.add([make_task(name="a"), make_task(name="b")])
        store.exchange(worker, [], 2)
        assert self.crash(store, worker) == 2
        fresh = store.join("here", 2, 2)
        assert store.next_suspect() is not None
        assert store.exchange(fresh, [], 5) == []
        assert {record.state for record in store.list_tasks()} == {"suspect"}
        suspect = store.claim_suspect(fresh)
        assert (suspect.name, suspect.attempts, suspect.alone) == ("a", 0, True)
        store.exchange(fresh, [judged(clock, suspect)], 0)
        assert {record.task.name: record.state for record in store.list_tasks()} == {"a": "waiting", "b": "suspect"}

    def test_a_task_that_ends_its_process_alone_three_times_is_given_up(self, store, clock, worker, told):
        store.add([make_task(name="poison"), make_task(name="neighbour")])
        store.exchange(worker, [], 2)
        self.crash(store, worker)
        for _ in range(3):
            fresh = store.join("here", 2, 2)
            assert told == []
            assert store.claim_suspect(fresh).name == "poison"
            self.crash(store, fresh)
        assert [(task.name, attempts, status) for task, attempts, status in told] == [("poison", 0, 0)]
        assert names(store.list_tasks()) == ["neighbour"]

    def test_a_suspect_that_answers_is_cleared(self, store, clock, worker, told):
        store.add([make_task()])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        for _ in range(2):
            fresh = store.join("here", 2, 2)
            store.claim_suspect(fresh)
            self.crash(store, fresh)
        fresh = store.join("here", 3, 3)
        suspect = store.claim_suspect(fresh)
        assert suspect.crashes == 2
        store.exchange(fresh, [judged(clock, suspect, 500)], 0)
        (record,) = store.list_tasks()
        assert (record.state, record.crashes, record.attempts) == ("waiting", 0, 1)

    def test_a_suspect_that_finds_its_shard_taken_stays_one(self, store, clock, worker, told):
        """A dead process held the lease: "busy" clears nobody, and the suspect is given up in the end."""
        store.add([make_task(name="poison")])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        store.add([make_task(name="neighbour")])
        for crashes in range(3):
            fresh = store.join("here", 2, 2)
            suspect = store.claim_suspect(fresh)
            assert (suspect.name, suspect.crashes, suspect.busy) == ("poison", crashes, crashes)
            store.exchange(fresh, [judged(clock, suspect, 500, outcome="busy")], 0)
            record = store.get_task("default", "poison")
            assert (record.state, record.crashes, record.attempts) == ("suspect", crashes, 0)
            assert record.due == from_micros(clock.now()) + timedelta(seconds=(0.1, 0.2, 0.4)[crashes])
            assert store.claim_suspect(fresh) is None
            clock.advance(1)
            # Never among others.
            others = store.exchange(fresh, [], 5)
            assert names(others) == ["neighbour"]
            store.exchange(fresh, returned(*others), 0)
            assert told == []
            assert store.claim_suspect(fresh).name == "poison"
            self.crash(store, fresh)
        assert [(task.name, attempts, status) for task, attempts, status in told] == [("poison", 0, 0)]
        assert [(record.task.name, record.state) for record in store.list_tasks()] == [("neighbour", "waiting")]

    def test_a_suspect_that_got_further_is_not_blamed(self, store, worker, told, monkeypatch):
        cursor = iter(range(100))
        monkeypatch.setattr(hooks, "_progress", [lambda task: str(next(cursor))])
        store.add([make_task()])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        for _ in range(6):
            fresh = store.join("here", 2, 2)
            assert store.claim_suspect(fresh) is not None
            self.crash(store, fresh)
        assert told == []
        assert store.list_tasks()[0].crashes == 0

    def test_a_suspect_handed_back_stays_one_without_blame(self, store, worker):
        store.add([make_task()])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        fresh = store.join("here", 2, 2)
        store.exchange(fresh, returned(store.claim_suspect(fresh)), 0)
        assert [(record.state, record.crashes) for record in store.list_tasks()] == [("suspect", 0)]
        store.claim_suspect(fresh)
        store.leave(fresh)
        assert [(record.state, record.crashes) for record in store.list_tasks()] == [("suspect", 0)]

    def test_suspects_of_a_paused_queue_wait(self, store, worker):
        store.add([make_task(name="held")])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        store.set_paused("default", True)
        fresh = store.join("here", 2, 2)
        assert store.next_suspect() is None
        assert store.claim_suspect(fresh) is None
        assert store.run_now("default", "held")
        assert store.claim_suspect(fresh).name == "held"

    def test_suspects_count_among_those_that_run_at_one_time(self, store, worker, settings):
        settings.CLOUD_TASKS_QUEUES = [{"name": "narrow", "rate_max_concurrent": 1}]
        store.add([make_task(queue="narrow", name="suspect"), make_task(queue="narrow", name="next")])
        store.add([make_task(name="free")])
        assert sorted(names(store.exchange(worker, [], 9))) == ["free", "suspect"]
        self.crash(store, worker)
        here, there = store.join("here", 2, 2), store.join("there", 2, 2)
        (following,) = store.exchange(here, [], 9)
        assert following.name == "next"
        # One that is held does not hold others.
        assert store.claim_suspect(there).name == "free"
        assert store.next_suspect() is None
        assert store.claim_suspect(there) is None
        store.run_now("narrow", "suspect")
        assert store.next_suspect() is not None
        store.exchange(here, done(following), 0)
        assert store.claim_suspect(there).name == "suspect"
        assert store.exchange(here, [], 9) == []

    def test_a_poison_whose_end_cannot_be_told_stays_a_suspect(self, store, clock, worker, monkeypatch, caplog):
        """Among others it would take them along."""

        def fail(*_):
            raise ValueError("no place for dead letters")

        monkeypatch.setattr(hooks, "_exhausted", [fail])
        store.add([make_task(name="poison")])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        for _ in range(3):
            fresh = store.join("here", 2, 2)
            assert store.claim_suspect(fresh).name == "poison"
            self.crash(store, fresh)
        record = store.get_task("default", "poison")
        assert (record.state, record.due) == ("suspect", from_micros(clock.now()) + timedelta(seconds=60))
        # Likewise one that is too old.
        store.sweep(retention=-1)
        assert store.get_task("default", "poison").state == "suspect"
        assert "no place for dead letters" in caplog.text
