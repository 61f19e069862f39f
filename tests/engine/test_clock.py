"""Clocks: the one of a database server, and the watch that notices when a clock is set."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from django.db import OperationalError

from soc_tasks.engine import clock as module
from soc_tasks.engine.caretaker import HOLD, Caretaker
from soc_tasks.engine.clock import ASK_AGAIN, SECOND, DatabaseClock, FakeClock, SystemClock, from_micros
from soc_tasks.engine.jumps import LEAST, QUICK, ClockWatch
from soc_tasks.engine.store import get_store
from tests.engine.tasks import make_task, names

HOUR = 3600
SERVER = 1_800_000_000 * SECOND


class Machine:
    """This machine's clocks, and a server's: that one is asked over a line that takes its time."""

    def __init__(self):
        self.seconds = 500.0
        self.wall = 1_700_000_000.0
        self.server = SERVER
        self.trip = 0.0
        self.asked = 0
        self.gone = False

    def advance(self, seconds):
        self.seconds += seconds
        self.wall += seconds
        self.server += round(seconds * SECOND)

    def ask(self):
        self.asked += 1
        self.advance(self.trip / 2)
        answer = self.server
        self.advance(self.trip / 2)
        if self.gone:
            raise OperationalError("the server is gone")
        return answer


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    clocks = SimpleNamespace(
        monotonic=lambda: machine.seconds, time=lambda: machine.wall, time_ns=lambda: round(machine.wall * 1e9)
    )
    monkeypatch.setattr(module, "time", clocks)
    return machine


@pytest.fixture
def clock(machine):
    return DatabaseClock(machine.ask)


def test_the_system_clock_is_the_machines():
    before = time.time()
    assert before - 1 < SystemClock().now() / SECOND < time.time() + 1
    assert SystemClock().monotonic() <= time.monotonic()


def test_a_server_is_asked_once_and_counted_on(machine, clock):
    assert clock.now() == SERVER
    for _ in range(10):
        machine.advance(ASK_AGAIN / 10)
        assert clock.now() == machine.server
    assert machine.asked == 1
    machine.advance(1)
    assert clock.now() == machine.server
    assert machine.asked == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_wall_clock_here_does_not_matter(machine, clock, hours):
    clock.now()
    machine.wall += hours * HOUR
    assert clock.now() == machine.server
    machine.advance(10)
    assert clock.now() == machine.server


def test_two_machines_an_hour_apart_tell_the_same_time(machine):
    here = DatabaseClock(machine.ask)
    first = here.now()
    machine.wall -= HOUR
    there = DatabaseClock(machine.ask)
    assert there.now() == first == here.now()


def test_after_a_machine_slept_the_server_is_asked_again(machine, clock):
    clock.now()
    # Its monotonic clock stood still meanwhile.
    machine.server += 300 * SECOND
    machine.wall += 300
    assert clock.now() == machine.server
    assert machine.asked == 2


def test_the_time_on_the_way_is_counted_for_half(machine, clock):
    machine.trip = 0.2
    assert clock.now() == machine.server


def test_a_first_answer_that_took_its_time_is_asked_for_again(machine, clock):
    """It opened the connection: most of the time went by before the server looked at its clock."""
    answer, trips = machine.ask, iter([0.5, 0.0])

    def ask():
        machine.advance(next(trips))
        return answer()

    clock._ask = ask
    assert clock.now() == machine.server
    assert machine.asked == 2


def test_a_slow_answer_changes_nothing_that_it_does_not_contradict(machine, clock):
    clock.now()
    machine.advance(ASK_AGAIN + 1)
    machine.trip = 4.0
    # All of the way back: the answer is old when it comes.
    answer, machine.ask = machine.ask, None

    def ask():
        machine.trip, told = 0.0, answer()
        machine.advance(4.0)
        return told

    clock._ask = ask
    assert clock.now() == machine.server


def test_a_server_whose_clock_was_set_is_followed(machine, clock):
    clock.now()
    machine.server -= HOUR * SECOND
    machine.advance(ASK_AGAIN + 1)
    assert clock.now() == machine.server


def test_while_the_server_is_gone_the_last_answer_serves(machine, clock):
    clock.now()
    machine.gone, machine.trip = True, 5.0
    for _ in range(4):
        machine.advance(ASK_AGAIN + 1)
        assert clock.now() == machine.server
    # It is not asked at each call, or each would wait for it.
    asked = machine.asked
    clock.now()
    assert machine.asked == asked


def test_before_the_first_answer_this_machine_serves_until_there_is_one(machine, clock):
    machine.gone = True
    assert clock.now() == round(machine.wall * SECOND)
    machine.gone = False
    assert clock.now() == machine.server


# The watch.


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 1.5, -1.5])
def test_a_clock_that_is_set_is_noticed_once(seconds):
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.advance(7)
    assert watch.look() == 0
    clock.set_back(-seconds)
    clock.advance(1)
    assert watch.look() == seconds * SECOND
    assert watch.look() == 0


def test_corrections_by_degrees_are_no_jumps():
    clock = FakeClock()
    watch = ClockWatch(clock)
    for _ in range(100):
        clock.advance(1)
        clock.set_back(0.9 * LEAST)
        assert watch.look() == 0


def test_a_process_that_was_stopped_between_two_readings_knows_nothing():
    clock = FakeClock()
    watch = ClockWatch(clock)
    now, clock.now = clock.now, lambda: (now(), clock.advance(QUICK * 100))[0]
    assert watch.look() == 0
    clock.now = now
    assert watch.look() == 0
    clock.set_back(HOUR)
    assert watch.look() == -HOUR * SECOND


# The caretaker: the leader moves along what waits, and the others leave it the time.


@pytest.fixture
def fake():
    return FakeClock()


@pytest.fixture
def store(engine_database, fake):
    store = get_store(engine_database)
    store.clock = fake
    return store


@pytest.fixture
def leader(store, fake):
    caretaker = Caretaker(store, fake)
    caretaker.join()
    caretaker.care()
    assert caretaker.leads
    return caretaker


def test_the_leader_moves_along_what_waits(store, fake, leader, caplog):
    store.add([make_task(name="due", created=from_micros(fake.now()))])
    fake.advance(0.01)
    fake.set_back(HOUR)
    assert store.next_due() > fake.now()
    # At once, not when the next round is due.
    leader.care()
    assert store.next_due() <= fake.now()
    assert not leader.holds
    assert [record.getMessage()[:36] for record in caplog.records] == ["the clock was set back by 3600 s; wh"]
    leader.care()
    assert len(caplog.records) == 1


def test_the_others_wait_for_the_leader_and_shift_nothing(store, fake, leader, caplog):
    other = Caretaker(store, fake)
    other.join()
    other.care()
    assert not other.leads
    store.add([make_task(name="due", created=from_micros(fake.now()))])
    fake.set_back(HOUR)
    other.care()
    assert other.holds
    assert store.next_due() > fake.now()
    leader.care()
    leader.care()
    due = store.next_due()
    assert due <= fake.now()
    other.care()
    assert store.next_due() == due
    fake.advance(HOLD)
    assert not other.holds
    assert names(store.exchange(other.worker, [], 5)) == ["due"]
    assert len(caplog.records) == 1


def test_a_jump_that_could_not_be_seen_to_is_not_forgotten(store, fake, leader, monkeypatch):
    store.add([make_task(name="due", created=from_micros(fake.now()))])
    fake.set_back(HOUR)

    def fail(*_):
        raise OperationalError("the database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "shift_clock", fail)
        with pytest.raises(OperationalError):
            leader.care()
    leader.care()
    assert store.next_due() <= fake.now()
