"""Sites whose connections use REPEATABLE READ: what others did since a transaction began is not overlooked.

MySQL and MariaDB show old rows unless they are locked; PostgreSQL refuses to write over what it does not show, and then
all is undone and comes again.
"""

from __future__ import annotations

import threading

import pytest
from django.db import connections, transaction

from soc_tasks.backends import get_backend
from soc_tasks.logic import parking
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.runs import finish_shard
from soc_tasks.meta import Inherited, SliceMessage, read_meta
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.state.locks import is_lock_error
from tests.databases import VENDORS

pytestmark = [
    pytest.mark.parametrize("engine_database", VENDORS[1:], indirect=True),
    pytest.mark.parametrize("strict", [False, True]),
]

RUN = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def repeatable_read(engine_database, strict):
    """Have the connections of the state, this thread's and others', use that level.

    Strict is MariaDB's way since 11.6, which refuses as PostgreSQL does.
    """
    options = connections.settings[engine_database]["OPTIONS"]
    if connections[engine_database].vendor == "mysql":
        options["isolation_level"] = "repeatable read"
        if strict:
            if not has_snapshot_isolation(engine_database):
                pytest.skip("this release of MariaDB, or MySQL, has no innodb_snapshot_isolation")
            options["init_command"] = "SET SESSION innodb_snapshot_isolation = ON"
    elif strict:
        pytest.skip("PostgreSQL always is")
    else:
        from django.db.backends.postgresql.psycopg_any import IsolationLevel

        options["isolation_level"] = IsolationLevel.REPEATABLE_READ
    connections[engine_database].close()
    del connections[engine_database]


def has_snapshot_isolation(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute("SHOW VARIABLES LIKE 'innodb_snapshot_isolation'")
        return cursor.fetchone() is not None


@pytest.fixture
def queued(engine_database, monkeypatch):
    """The slices that were enqueued."""
    messages = []
    monkeypatch.setattr(
        get_backend(), "submit", lambda tasks, using=None: messages.extend(read_meta(one).slice for one in tasks)
    )
    return messages


def beside(work):
    """Run a function in a thread, on a connection of its own."""
    errors = []

    def call():
        try:
            work()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def begin(**more):
    """Keep an iteration in two shards."""
    options = {
        "path": "/x",
        "script_name": "",
        "inherited": Inherited(queue="default").as_dict(),
        "context": "{}",
        "shards": 2,
    }
    iteration = IterationRecord(id=RUN, name="run", unfinished=2, total=7, options=options, **more)
    shards = [ShardRecord(iteration=RUN, index=index, context="{}", expected=3) for index in range(2)]
    assert get_state().create_iteration(iteration, shards)


def insist(work):
    """Do something again where the database undid it, as deliveries come again."""
    for _ in range(3):
        try:
            return work()
        except Exception as error:
            if not is_lock_error(error):
                raise
    return work()


def test_a_shard_that_has_parked_since_is_woken(queued):
    begin(concurrency=1)
    done = []

    def park():
        state = get_state()
        if done:
            return
        with state.locked_shard(RUN, 1) as shard:
            done.append(parking.park(shard, state.get_iteration(RUN)))

    def end():
        state = get_state()
        with state.locked_shard(RUN, 0, for_view=True) as shard:
            state.get_iteration(RUN)
            state.list_shards(RUN)
            beside(park)
            shard.status = "done"
            state.save_shard(shard)
            assert state.finish_shard(RUN) == 1
            parking.wake(RUN)

    insist(end)
    assert done == [True]
    state = get_state()
    assert [shard.status for shard in state.list_shards(RUN)] == ["done", "running"]
    assert state.get_iteration(RUN).parked == 0
    assert queued == [SliceMessage(iteration=RUN, shard=1, step=1, epoch=0)]


@pytest.mark.parametrize("drops", [False, True])
def test_what_another_shard_did_since_is_in_the_result(queued, drops, monkeypatch):
    begin()
    ends, results = [], []
    monkeypatch.setattr("soc_tasks.logic.runs._make_finalize", lambda now, plan, result: results.append(result))
    monkeypatch.setattr("soc_tasks.logic.runs._submit", lambda tasks: None)
    plan = Plan(finalize="anything", drops_shards=drops)

    def end(index, done):
        state = get_state()
        with state.locked_shard(RUN, index, for_view=True) as shard:
            iteration = state.get_iteration(RUN)
            state.list_shards(RUN)
            if index == 0 and not ends:
                beside(lambda: end(1, 4))
                ends.append(1)
            shard.status, shard.done = "done", done
            state.save_shard(shard)
            finish_shard(iteration, plan)

    insist(lambda: end(0, 3))
    assert [(result.done, result.failed) for result in results] == [(7, 0)]
    record = get_state().get_iteration(RUN)
    assert record.status == "succeeded"
    assert not drops or record.options["done"] == 7


@pytest.mark.parametrize("opened", ["atomic", "locked_shard"])
def test_transactions_of_our_own_see_what_others_commit(queued, opened):
    begin()
    state = get_state()
    with state.atomic() if opened == "atomic" else state.locked_shard(RUN, 0):
        assert state.get_iteration(RUN).wanted is False
        beside(lambda: state.set_wanted(RUN, True))
        assert state.get_iteration(RUN).wanted is True
        # PostgreSQL would refuse that, and a pause or a limit would not be set.
        state.set_wanted(RUN, False)
    # The next one is of the site's level again.
    with transaction.atomic(using=state.alias):
        assert state.get_iteration(RUN).wanted is False
        beside(lambda: state.set_wanted(RUN, True))
        assert state.get_iteration(RUN).wanted is False


def test_a_batch_of_the_site_keeps_the_level_of_the_site(queued):
    begin()
    state = get_state()
    with state.locked_shard(RUN, 0, for_view=True):
        assert state.get_iteration(RUN).wanted is False
        beside(lambda: state.set_wanted(RUN, True))
        assert state.get_iteration(RUN).wanted is False


def test_a_start_that_another_delivery_made_since_is_not_made_twice(queued):
    state = get_state()
    made = []

    def start():
        with transaction.atomic(using=state.alias):
            assert made or state.get_iteration(RUN) is None
            if not made:
                beside(begin)
                made.append(1)
            return state.create_iteration(IterationRecord(id=RUN, name="run", unfinished=1), [])

    assert insist(start) is False
    assert state.get_iteration(RUN).unfinished == 2


def test_a_receipt_that_another_delivery_wrote_since_counts(queued):
    state = get_state()
    made = []

    def claim():
        with transaction.atomic(using=state.alias):
            state.get_iteration(RUN)
            if not made:
                beside(lambda: state.claim_receipt("b" * 32, state.alias))
                made.append(1)
            return state.claim_receipt("b" * 32, state.alias)

    assert insist(claim) is False
