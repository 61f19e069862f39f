"""A site on a backend, as the contract of backends uses it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from datetime import timedelta

from django.db import connections
from django.test import Client

from soc_tasks.backends import get_backend
from soc_tasks.engine.clock import SECOND, SystemClock, from_micros
from soc_tasks.logic.tasks import build_task
from soc_tasks.values import TaskRequest

#: Queues of the site; "quick" tries again at once, four times in all.
QUEUES = [
    {"name": "default"},
    {"name": "quick", "retry_max_attempts": 4, "retry_min_backoff": 0, "retry_max_backoff": 0},
]
SETTINGS = {
    "ROOT_URLCONF": "tests.contracts.backend_site",
    "MIDDLEWARE": ["django.middleware.common.CommonMiddleware"],
    "ALLOWED_HOSTS": ["127.0.0.1", "testserver"],
    "CLOUD_TASKS_QUEUES": QUEUES,
}


class AheadClock(SystemClock):
    """The machine's clock, ahead by what it is told."""

    def __init__(self):
        self._ahead = 0

    def now(self):
        return super().now() + self._ahead

    def monotonic(self):
        return super().monotonic() + self._ahead / SECOND

    def advance(self, seconds):
        self._ahead += round(seconds * SECOND)


class Site(ABC):
    """What a test may do, and what the backend promises beyond the contract, or does not promise.

    Attributes:
        clock: moves the time by which tasks are due and names are free again; None: there is none to move.
        waits: whether a task waits for its time.
        frees_names: whether a name is free again after a day.
        routes: whether service, version and instance are taken.
        copies: whether `repeatTask(countdown)` queues a copy.
        sends_tokens: whether a token proves its calls.
        steers: whether queues can be paused, and tasks run at once.
    """

    clock: AheadClock | None = None
    waits = True
    frees_names = True
    routes = False
    copies = False
    sends_tokens = False
    steers = True

    @property
    def backend(self):
        """Return the class of the backend."""
        return type(get_backend())

    @abstractmethod
    def run(self):
        """Run all that is due, and what comes of that, until nothing happens any more."""

    @abstractmethod
    def list_waiting(self):
        """Return what waits in the queues."""

    def count(self):
        """Return how many tasks others see waiting: this thread may have a transaction open."""
        return in_thread(lambda: len(self.list_waiting()))

    def post(self, path, body, headers):
        """POST from outside; return the status of the answer."""
        return Client().post(path, body, "application/x-www-form-urlencoded", headers=headers).status_code

    def measure(self, context):
        """Return the bytes of a task as the backend counts them."""
        task = self.build(context)
        return len(task.path) + len(task.body) + sum(len(k) + len(v) for k, v in task.headers.items())

    @staticmethod
    def build(context):
        """Return the task that `startTask("play", context)` makes."""
        return build_task(TaskRequest("play", context), "default")[0]

    def executions(self, *statuses):
        """Return the execution counts of attempts, by the answers before them."""
        return list(range(len(statuses) + 1))

    def previous(self, *statuses):
        """Return the previous statuses that attempts are told, by the answers before them."""
        return [None, *statuses]


def is_idle(store):
    """Tell whether nothing runs in a store of the engine, and nothing will within seconds."""
    soon = from_micros(store.clock.now()) + timedelta(seconds=10)
    return all(record.state == "waiting" and record.due > soon for record in store.list_tasks())


def in_thread(work):
    """Run `work` in a thread of its own, with connections of its own, and return what it returned."""
    results = []

    def run():
        try:
            results.append(work())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results, "it failed; see the traceback of the thread"
    return results[0]
