"""A thread that was given up loses its open transaction, and gets no other."""

from __future__ import annotations

import threading

import pytest
from django.db import Error, connections, transaction

from soc_tasks.engine.store import get_store
from soc_tasks.engine.store.rows import QUEUES
from soc_tasks.engine.worker import Worker
from soc_tasks.values import Answer, RetryOptions
from tests.databases import on_every_database
from tests.engine.running import until
from tests.engine.tasks import make_task

pytestmark = on_every_database


@pytest.fixture
def store(engine_database):
    return get_store(engine_database)


def write(store, name):
    with connections[store.alias].cursor() as cursor:
        cursor.execute(f"INSERT INTO {QUEUES} (name) VALUES (%s)", (name,))


def read(store):
    return {name for (name,) in store.select(f"SELECT name FROM {QUEUES}")}


@pytest.fixture
def hang(store):
    """Have a worker give up a view that hangs; let the view go on then, and return what became of it."""

    def hang(view):
        began, go_on, became = threading.Event(), threading.Event(), []

        def dispatch(task, delivery):
            def wait():
                began.set()
                assert go_on.wait(30)

            try:
                view(wait)
            except Exception as error:
                became.append(error)
            else:
                became.append(None)
            return Answer(status=200)

        store.add([make_task(name="hung", dispatch_deadline=0.05, retry=RetryOptions(min_backoff=3600))])
        worker = Worker(store.alias, threads=1, dispatch=dispatch)
        thread = threading.Thread(target=worker.run, daemon=True)
        thread.start()
        try:
            assert began.wait(30)
            until(lambda: store.get_task("default", "hung").attempts == 1)
            # Nothing is locked any more.
            write(store, "others")
            go_on.set()
            until(lambda: became)
        finally:
            go_on.set()
            worker.stop()
            thread.join(30)
            # Its thread was given up by the worker: it closes its connection when it comes to its end.
            until(lambda: not any(each.name == "soc_tasks-dispatch" for each in threading.enumerate()))
        return became[0]

    return hang


def test_its_transaction_is_undone_and_what_it_writes_then_is_refused(store, hang):
    refused = []

    def view(wait):
        with transaction.atomic(using=store.alias):
            write(store, "before")
            wait()
            try:
                write(store, "after")
            except Error as error:
                refused.append(error)
                raise

    assert isinstance(hang(view), Error)
    assert len(refused) == 1
    assert read(store) == {"others"}


def test_it_cannot_commit_what_it_wrote(store, hang):
    def view(wait):
        with transaction.atomic(using=store.alias):
            write(store, "before")
            wait()

    hang(view)
    assert read(store) == {"others"}


def test_without_a_transaction_it_is_left_alone(store, hang):
    def view(wait):
        write(store, "before")
        wait()
        write(store, "after")

    assert hang(view) is None
    assert read(store) == {"before", "others", "after"}
