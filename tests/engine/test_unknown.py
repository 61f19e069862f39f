"""Two deploys side by side: a task that the older one does not know."""

from __future__ import annotations

import pytest

from soc_tasks.engine.store import get_store
from soc_tasks.engine.worker import Worker
from tests.engine.drain import drain
from tests.engine.running import note, until
from tests.engine.tasks import make_task


@pytest.fixture
def store(file_database):
    return get_store(file_database)


@pytest.mark.requires("sigkill")
def test_the_older_worker_leaves_a_new_task_to_the_newer_one(store, run, ran):
    older = run("--processes", "1")
    store.add([note(ran, "new", path="/new"), note(ran, "known")])
    until(lambda: store.get_task("default", "new").state == "unknown")
    newer = run("--processes", "1", ENGINE_URLS="tests.engine.newer")

    def has_run():
        # Whoever comes first takes it; the older one gives it back each time, to wait for longer than a test should.
        store.run_now("default", "new")
        return len(ran()) == 2

    until(has_run)
    assert ran() == [("known", str(older.pid)), ("new", str(newer.pid))]
    until(lambda: store.list_tasks() == [])
    told = [line for line in older.errors if "does not know what task new" in line]
    assert len(told) == 1


def test_until_empty_leaves_it_and_says_so(store):
    lines = []
    store.add([make_task("/nowhere", name="new"), make_task()])
    assert Worker(store.alias, tell=lines.append).run_until_empty() == 2
    assert lines == ["tasks left that this site does not know, for a worker that does: 1 (see tasks list)"]
    assert [(record.task.name, record.state, record.attempts) for record in store.list_tasks()] == [
        ("new", "unknown", 0)
    ]


def test_a_views_own_404_is_an_ordinary_failure(store):
    store.add([make_task("/answer/404?countdown=60")])
    assert drain(store) == 1
    (record,) = store.list_tasks()
    assert (record.state, record.attempts, record.status) == ("waiting", 1, 404)
