"""Rates, times left and tokens: by a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.signing import Signer, TimestampSigner, dumps

from soc_tasks import Iteration, ModelLogic, TaskHandle, iterative_task, startTask
from soc_tasks.logic import progress_tokens
from soc_tasks.logic.progress import PERIOD, judge_progress, next_rate, read_progress
from soc_tasks.logic.progress_tokens import BadTokenError, Permit, find_id, make_token, read_token
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.state.django import DjangoState
from tests.specimen.models import Row
from tests.views.calls import route

START = datetime(2026, 1, 2, 3, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch):
    """The state's clock: `clock(5)` moves it on by five seconds."""
    now = [START]

    def move(seconds):
        now[0] += timedelta(seconds=seconds)

    monkeypatch.setattr(DjangoState, "now", lambda self: now[0])
    return move


def make_record(**more):
    return IterationRecord(**{"id": "a" * 32, "name": "run", "created": START, "options": {}, **more})


def make_shard(index=0, **more):
    return ShardRecord(**{"iteration": "a" * 32, "index": index, "progressed_at": START, **more})


# The rate of a shard


def feed(batches):
    """Return the rate after batches of (entities, seconds)."""
    rate = age = 0.0
    for done, seconds in batches:
        age += seconds
        rate = next_rate(rate, done, seconds, age)
    return rate


def test_a_steady_pace_is_its_rate_from_the_first_batch_on():
    for number in (1, 2, 5, 100):
        assert feed([(50, 0.5)] * number) == pytest.approx(100)


def test_it_is_that_of_late():
    assert feed([(10, 1)] * 60 + [(100, 1)] * 60) == pytest.approx(100, rel=0.01)
    # After one period, what was before has a share of 1/e.
    assert feed([(10, 1)] * 600 + [(100, 1)] * int(PERIOD)) == pytest.approx(100 - 90 / 2.718, rel=0.01)


def test_one_odd_batch_of_many_weighs_by_its_time():
    assert feed([(10, 1)] * 60 + [(10, 0.001)]) == pytest.approx(11, rel=0.02)
    assert feed([(10, 0.001)] + [(10, 1)] * 9) < 13


@pytest.mark.parametrize("seconds", [0, -5])
def test_a_clock_that_stands_or_goes_back_makes_no_rate_beyond_measure(seconds):
    assert 0 < next_rate(10, 100, seconds, 60) < 25
    assert next_rate(0, 100, seconds, seconds) == pytest.approx(100_000)


def test_a_batch_of_nothing_slows_it_down():
    assert 0 < next_rate(10, 0, 1, 60) < 10


# What is made of the records


@pytest.mark.parametrize(
    ("idle", "rate"),
    [(0, 20), (PERIOD, 20), (2 * PERIOD, 20 / 2.718), (20 * PERIOD, 0)],
)
def test_a_stalled_shards_rate_fades_when_it_is_read(clock, idle, rate):
    clock(idle)
    progress = judge_progress(make_record(total=100), [make_shard(done=20, rate=20.0)])
    assert progress.rate == pytest.approx(rate, rel=0.01, abs=1e-3)
    # Of one that has stalled for good, nobody can tell.
    assert (progress.time_left is None) is (rate == 0)


def test_a_batch_that_takes_long_by_its_size_is_no_stall(clock):
    clock(60)
    shard = make_shard(done=40, rate=1.0, batch_size=40)
    assert judge_progress(make_record(), [shard]).rate == 1.0


def test_the_rate_is_the_sum_over_the_shards_that_work(clock):
    shards = [
        make_shard(0, status="done", done=30, rate=9.0),
        make_shard(1, done=10, failed=2, rate=4.0),
        make_shard(2, done=20, rate=6.0),
        make_shard(3, status="parked", rate=7.0),
        make_shard(4, progressed_at=None),
    ]
    progress = judge_progress(make_record(total=92), shards)
    assert (progress.done, progress.failed, progress.rate) == (60, 2, 10.0)
    assert progress.time_left == timedelta(seconds=3)
    assert progress.share == pytest.approx(62 / 92)
    assert [shard.rate for shard in progress.shards] == [0, 4, 6, 0, 0]
    assert [(shard.total, shard.time_left) for shard in progress.shards] == [(30, timedelta(0)), *[(None, None)] * 4]


def test_an_only_shard_has_the_total_of_all(clock):
    [shard] = judge_progress(make_record(total=50), [make_shard(done=30, rate=10.0)]).shards
    assert (shard.total, shard.time_left) == (50, timedelta(seconds=2))


def test_what_does_not_work_has_no_rate_and_what_has_ended_its_average(clock):
    shards = [make_shard(done=50, rate=4.0, progressed_at=START + timedelta(seconds=25))]
    paused = judge_progress(make_record(status="paused", total=100), shards)
    assert (paused.rate, paused.time_left) == (0, None)
    for status, left in (("succeeded", timedelta(0)), ("failed", None), ("cancelled", None)):
        ended = judge_progress(make_record(status=status, total=100), shards)
        assert (ended.rate, ended.time_left, ended.has_ended) == (2, left, True)
    gone = make_record(status="succeeded", finished=START + timedelta(seconds=10), options={"done": 70, "failed": 5})
    assert (judge_progress(gone, []).rate, judge_progress(gone, []).failed) == (7.5, 5)


def test_why_it_is_held_back_is_told_while_it_works(clock):
    shards = [make_shard(0, status="done", hold="old"), make_shard(1, hold="the database is busy")]
    assert judge_progress(make_record(), shards).hold == "the database is busy"
    held = [make_shard(done=50, rate=4.0, progressed_at=START, hold="the database is busy")]
    assert judge_progress(make_record(total=100), held).time_left is None
    assert judge_progress(make_record(status="paused"), shards).hold == ""


@pytest.mark.parametrize(
    ("total", "done", "status", "share"),
    [
        (None, 5, "running", None),
        (0, 0, "running", 0),
        (0, 0, "succeeded", 1),
        (10, 12, "running", 1),
        (10, 7, "succeeded", 1),
    ],
)
def test_the_share_that_is_done(clock, total, done, status, share):
    assert judge_progress(make_record(total=total, status=status), [make_shard(done=done)]).share == share


def test_times_beyond_measure_are_none(clock):
    shards = [make_shard(done=1, rate=1e-300)]
    assert judge_progress(make_record(total=10**18), shards).time_left is None


# As a run fills it


@pytest.mark.django_db
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("time_limit", [None, 1e-9])
def test_a_run_tells_its_rate_as_it_goes(task_queues, clock, atomic, time_limit):
    Row.objects.bulk_create(Row() for _ in range(40))
    seen, handle = [], None

    @iterative_task(ModelLogic(Row), batch_size=10, atomic=atomic, time_limit=time_limit)
    def view(request, entities):
        if request.task.step == 0 and not seen:
            # It has waited for its turn, and nobody takes that for slowness.
            assert read_progress(handle.iteration).rate == 0
        iteration = Iteration.get(handle.iteration)
        seen.append((iteration.done, round(iteration.rate, 6), iteration.time_left))
        clock(2)

    with route(view):
        handle = startTask(view)
        task_queues.process_task_queues()
    assert seen[1:] == [(done, 5.0, timedelta(seconds=(40 - done) / 5)) for done in (10, 20, 30)]
    iteration = Iteration.get(handle.iteration)
    assert (iteration.status, iteration.time_left) == ("succeeded", timedelta(0))


@pytest.mark.django_db
def test_a_pause_is_no_slowness(task_queues, clock):
    Row.objects.bulk_create(Row() for _ in range(40))
    rates = []

    @iterative_task(Row, batch_size=10)
    def view(request, entities):
        iteration = Iteration.get(request.task.iteration)
        rates.append(iteration.rate)
        clock(1)
        if iteration.done == 10:
            iteration.pause()

    with route(view):
        iteration_id = startTask(view).iteration
        task_queues.process_task_queues()
        clock(3600)
        Iteration.get(iteration_id).resume()
        task_queues.process_task_queues()
    assert rates[0] == 0
    assert rates[1:] == pytest.approx([10] * 3)


# Tokens


def test_a_token_says_what_it_permits():
    permit = Permit(iteration="b" * 32, language="pt-br", shards=True)
    assert read_token(make_token(permit)) == permit


def test_a_token_holds_for_its_time(monkeypatch):
    token = make_token(Permit(iteration="b" * 32), max_age=60)
    now = progress_tokens.time.time()
    monkeypatch.setattr(progress_tokens.time, "time", lambda: now + 59)
    read_token(token)
    monkeypatch.setattr(progress_tokens.time, "time", lambda: now + 62)
    with pytest.raises(BadTokenError, match="time is over"):
        read_token(token)


@pytest.mark.parametrize("max_age", [0, -1, float("nan"), float("inf"), True, "60", None])
def test_a_time_that_is_none_is_refused(max_age):
    with pytest.raises(ValueError, match="max_age must be seconds above 0"):
        make_token(Permit(iteration="b" * 32), max_age)


def test_keys_rotate(settings):
    token = make_token(Permit(iteration="b" * 32))
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "another", [settings.SECRET_KEY]
    read_token(token)
    newer = make_token(Permit(iteration="b" * 32))
    settings.SECRET_KEY_FALLBACKS = []
    read_token(newer)
    with pytest.raises(BadTokenError):
        read_token(token)


VALUE = ["b" * 32, 2**40, "", False]


@pytest.mark.parametrize(
    "make",
    [
        lambda: "",
        lambda: "x",
        lambda: ":",
        lambda: "é" * 20,
        lambda: "a" * 100_000,
        lambda: make_token(Permit(iteration="b" * 32))[:-1],
        lambda: "A" + make_token(Permit(iteration="b" * 32)),
        lambda: Signer().sign_object(VALUE),
        lambda: Signer(salt="soc_tasks.signatures.dispatch").sign_object(VALUE),
        lambda: dumps(VALUE, salt=progress_tokens.SALT),
        lambda: TimestampSigner(salt=progress_tokens.SALT).sign_object(VALUE),
        lambda: Signer(salt=progress_tokens.SALT).sign_object(VALUE[:2]),
        lambda: Signer(salt=progress_tokens.SALT).sign_object({"iteration": "b"}),
        lambda: Signer(salt=progress_tokens.SALT).sign_object(["b", "later", "", False]),
    ],
)
def test_anything_else_is_no_token(make):
    with pytest.raises(BadTokenError):
        read_token(make())


@pytest.mark.django_db
def test_an_iteration_is_named_in_three_ways():
    handle = TaskHandle(name="n", queue="default", url="/", iteration="c" * 32)
    iteration = Iteration(make_record(), [])
    assert (find_id("c" * 32), find_id(handle), find_id(iteration)) == ("c" * 32, "c" * 32, "a" * 32)
    with pytest.raises(ValueError, match="starts no iteration"):
        find_id(TaskHandle(name="n", queue="default", url="/"))
    with pytest.raises(ValueError, match="is empty"):
        find_id("")
    for other in (None, 5, ["a"]):
        with pytest.raises(TypeError, match="pass what startTask returned"):
            find_id(other)
