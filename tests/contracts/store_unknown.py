"""The contract of a store: tasks that a worker does not know wait for one that does."""

from __future__ import annotations

from soc_tasks.engine.clock import SECOND, from_micros
from soc_tasks.engine.verdicts import UNKNOWN
from soc_tasks.values import RetryOptions
from tests.engine.tasks import done, judged, make_task, names

DAY = 86400


class UnknownContract:
    """What becomes of what nobody knows."""

    def not_known(self, store, clock, worker):
        """Claim the one task there is, and do not know it."""
        (leased,) = store.exchange(worker, [], 5)
        store.exchange(worker, [judged(clock, leased, 404, outcome="unknown")], 0)
        return leased

    def test_it_comes_back_uncounted_and_later_each_time(self, store, clock, worker, caplog):
        store.add([make_task("/new", name="new", retry=RetryOptions(max_attempts=1))])
        began = clock.now()
        for delay in (1, 1, 2, 4, 8, 16, 32, 60, 60):
            self.not_known(store, clock, worker)
            record = store.get_task("default", "new")
            assert (record.state, record.attempts, record.responses, record.status) == ("unknown", 0, 0, None)
            assert (record.due, record.unknown) == (from_micros(clock.now() + delay * SECOND), from_micros(began))
            clock.advance(delay)
        # Said once.
        assert [r.getMessage() for r in caplog.records if "does not know what task new" in r.getMessage()] == [
            "this site does not know what task new of queue default calls (/new): it waits, for up to a day, for a "
            "worker that does"
        ]
        # A worker of a newer release takes it.
        newer = store.join("there", 2, 2)
        (leased,) = store.exchange(newer, [], 5)
        assert (leased.name, leased.attempts) == ("new", 0)
        store.exchange(newer, done(leased), 0)
        assert store.list_tasks() == []

    def test_after_a_day_it_is_told_and_gone(self, store, clock, worker, told):
        store.add([make_task("/new", name="new")])
        self.not_known(store, clock, worker)
        clock.advance(DAY - 1)
        self.not_known(store, clock, worker)
        assert told == []
        clock.advance(60)
        self.not_known(store, clock, worker)
        assert [(task.name, task.path, attempts, status) for task, attempts, status in told] == [
            ("new", "/new", 0, UNKNOWN)
        ]
        assert store.list_tasks() == []

    def test_an_answer_of_whoever_knows_it_forgets_that_it_was_unknown(self, store, clock, worker, told):
        store.add([make_task(name="task")])
        for answer in ({"status": 500}, {"status": 500, "outcome": "busy"}):
            self.not_known(store, clock, worker)
            clock.advance(60)
            (leased,) = store.exchange(worker, [], 5)
            assert leased.unknown == clock.now() - 60 * SECOND
            store.exchange(worker, [judged(clock, leased, **answer)], 0)
            record = store.get_task("default", "task")
            assert (record.state, record.unknown) == ("waiting", None)
            clock.advance(60)
        # Two real days later the day begins anew.
        clock.advance(2 * DAY)
        self.not_known(store, clock, worker)
        assert told == []
        assert store.get_task("default", "task").attempts == 1

    def test_nothing_waits_for_a_worker_of_another_release(self, store, clock, worker):
        store.add([make_task(name="failed"), make_task(queue="other")])
        leased, other = sorted(store.exchange(worker, [], 5), key=lambda task: task.queue)
        store.exchange(worker, [judged(clock, leased, 500), *done(other)], 0)
        assert not store.is_empty()
        clock.advance(1)
        self.not_known(store, clock, worker)
        assert store.is_empty()
        assert store.count_retries() == (0, 0)
        assert store.count_unknown() == store.count_unknown({"default"}) == 1
        assert store.count_unknown({"other"}) == 0
        # When it is due it is tried.
        clock.advance(1)
        assert not store.is_empty()
        assert names(store.exchange(worker, [], 5)) == ["failed"]
        assert store.count_unknown() == 0

    def test_a_suspect_that_is_not_known_stays_one(self, store, clock, worker):
        store.add([make_task(name="suspect")])
        store.exchange(worker, [], 1)
        self.crash(store, worker)
        fresh = store.join("here", 2, 2)
        leased = store.claim_suspect(fresh)
        store.exchange(fresh, [judged(clock, leased, 404, outcome="unknown")], 0)
        (record,) = store.list_tasks()
        assert (record.state, record.unknown) == ("suspect", from_micros(clock.now()))
        assert store.is_empty()
        assert store.claim_suspect(fresh) is None
        clock.advance(1)
        assert not store.is_empty()
        assert store.claim_suspect(fresh).name == "suspect"
