"""Transactions of a Datastore client that tasks, batches and the state are part of."""

from __future__ import annotations

import random
import threading

import pytest
from google.cloud import datastore

from soc_tasks import ConfigurationError, FatalTaskError, TaskTooLargeError, defer, startTask
from soc_tasks.state import datastore_units
from soc_tasks.state.base import IterationRecord, ShardBusyError, ShardRecord
from soc_tasks.state.datastore import get_client
from soc_tasks.state.datastore_records import OUTBOX
from soc_tasks.state.transactions import ClientAlias, atomic, find_alias, is_doomed, is_open
from soc_tasks.state.undone import UndoneError
from tests.contracts.state_records import RUN, make_task, undone
from tests.datastore.entities import count
from tests.emulators import PROJECT, on_every_edition
from tests.specimen import functions

#: Text that gets no shorter when it is packed.
DENSE = random.Random(1).randbytes(20_000).hex()

pytestmark = on_every_edition


@pytest.fixture
def run(state):
    state.create_iteration(IterationRecord(id=RUN, name="run"), [ShardRecord(iteration=RUN, index=0)])
    return RUN


def entity(client, name, **properties):
    made = datastore.Entity(client.key("Note", name))
    made.update(properties)
    return made


def test_what_a_view_writes_commits_with_the_state_or_not_at_all(state, client, run):
    with state.locked_shard(run, 0) as shard:
        client.put(entity(client, "a"))
        shard.cursor = "1"
        state.save_shard(shard)
        assert client.get(client.key("Note", "a")) is None
    with undone(state.locked_shard(run, 0)) as shard:
        client.put(entity(client, "b"))
        shard.cursor = "2"
        state.save_shard(shard)
    assert [client.get(client.key("Note", name)) is not None for name in "ab"] == [True, False]
    assert state.list_shards(run)[0].cursor == "1"


def test_a_part_is_undone_with_what_a_view_wrote_in_it(state, client):
    with state.atomic():
        client.put(entity(client, "a"))
        with undone(state.atomic()):
            client.put(entity(client, "b"))
            client.put(datastore.Entity(client.key("Note")))
            state.hold_tasks([make_task()], state.alias)
    assert (count(client, "Note"), count(client, OUTBOX)) == (1, 0)


def test_of_two_who_meet_one_is_undone(state, run):
    others = []

    def meet():
        try:
            with state.locked_shard(run, 0) as shard:
                shard.cursor = "other"
                state.save_shard(shard)
        except ShardBusyError as error:
            others.append(error)

    mine = []
    try:
        with state.locked_shard(run, 0) as shard:
            thread = threading.Thread(target=meet)
            thread.start()
            thread.join()
            shard.cursor = "mine"
            state.save_shard(shard)
    except UndoneError as error:
        mine.append(error)
    # Which of them, is the database's choice.
    assert len(mine) + len(others) == 1
    assert state.list_shards(run)[0].cursor == ("other" if mine else "mine")


def test_what_is_undone_is_done_again(state):
    state.create_iteration(IterationRecord(id=RUN, name="run", unfinished=6), [])
    threads = [threading.Thread(target=lambda: state.run(lambda: state.finish_shard(RUN))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.get_iteration(RUN).unfinished == 0


def test_of_many_who_begin_an_iteration_one_does(state):
    begun = []

    def begin():
        shards = [ShardRecord(iteration=RUN, index=0)]
        begun.append(state.run(lambda: state.create_iteration(IterationRecord(id=RUN, name="run"), shards)))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(begun) == [False, False, False, True]


def test_more_than_a_commit_takes_is_refused_before_it_is_sent(state, client, monkeypatch):
    with pytest.raises(FatalTaskError, match=r"501 entities.*at most 500.*batch_size"), state.atomic():
        client.put_multi([entity(client, str(number)) for number in range(501)])
    monkeypatch.setattr(datastore_units, "MOST_BYTES", 1000)
    note = datastore.Entity(client.key("Note", "long"), exclude_from_indexes=("text",))
    note["text"] = "x" * 1001
    with pytest.raises(FatalTaskError, match=r"at most 1,000 in one commit"), state.atomic():
        client.put(note)
    assert count(client, "Note") == 0


def test_arguments_beyond_a_commit_are_refused(state):
    with pytest.raises(TaskTooLargeError, match="9,437,185 bytes packed, and Datastore"):
        state.keep_payload("1" * 32, b"x" * (9 * 2**20 + 1), state.now())


def test_a_transaction_that_a_view_gave_up_is_noticed(state, client):
    with state.atomic():
        assert is_open(state.alias)
        assert not is_doomed(state.alias)
        client.current_transaction.rollback()
        assert is_doomed(state.alias)


def test_places_are_equal_by_project_database_and_namespace(state, client, kinds):
    assert get_client() is client
    other = datastore.Client(project=PROJECT, namespace=kinds.namespace)
    assert find_alias(other) == state.alias == find_alias(str(state.alias))
    assert find_alias(other).client is other
    elsewhere = datastore.Client(project=PROJECT, namespace="elsewhere")
    with pytest.raises(ConfigurationError, match=r"datastore:demo//elsewhere.*keeps its state in datastore:demo//test"):
        find_alias(elsewhere)
    with pytest.raises(ConfigurationError, match="no alias of DATABASES; known are default, other"):
        find_alias("nowhere")


def test_a_client_is_no_place_where_the_state_is_sql(kinds, settings):
    settings.SOC_TASKS = {}
    with pytest.raises(ConfigurationError, match="Set it to 'datastore'"):
        find_alias(kinds)


# Tasks


@pytest.fixture
def other(kinds):
    """Give a client of the caller's own, beside the state's."""
    return datastore.Client(project=PROJECT, namespace=kinds.namespace)


def start(client, how):
    if how == "startTask":
        return startTask("behave", {"a": 1}, using=client)
    return defer(functions.note, 1, _using=client)


@pytest.mark.parametrize("how", ["startTask", "defer"])
def test_a_task_is_there_if_the_transaction_commits(state, other, memory_backend, how):
    with other.transaction():
        start(other, how)
        assert memory_backend.tasks_now() == []
    assert len(memory_backend.tasks_now()) == 1
    with undone(other.transaction()):
        start(other, how)
    with other.transaction() as transaction:
        start(other, how)
        transaction.rollback()
    assert len(memory_backend.tasks_now()) == 1
    # No transaction: at once.
    start(other, how)
    assert len(memory_backend.tasks_now()) == 2


def test_without_using_the_state_s_own_client_counts(state, client, memory_backend):
    with undone(client.transaction()):
        startTask("behave")
        defer(functions.note, 1)
    assert memory_backend.tasks_now() == []


def test_arguments_of_size_commit_with_their_task(state, client, memory_backend, narrow):
    with undone(client.transaction()):
        defer(functions.note, DENSE, _using=client)
    assert count(client, "SocTasksPayload") == 0
    with client.transaction():
        defer(functions.note, DENSE, _using=client)
    assert count(client, "SocTasksPayload") == 1


def test_a_transaction_that_begins_late_takes_tasks_as_well(state, other, memory_backend):
    with other.transaction(begin_later=True):
        startTask("behave", using=other)
    assert len(memory_backend.tasks_now()) == 1


def test_a_failing_hook_fails_nothing_that_has_committed(state, client, caplog):
    with atomic(ClientAlias(client)):
        client.put(entity(client, "a"))
        datastore_units.on_commit(client, lambda: 1 / 0)
    assert count(client, "Note") == 1
    assert "ZeroDivisionError" in caplog.text
