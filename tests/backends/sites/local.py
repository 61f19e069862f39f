"""Sites that keep their tasks themselves: on the memory backend, and on the embedded one with its worker."""

from __future__ import annotations

from contextlib import contextmanager

from soc_tasks.backends import get_backend
from soc_tasks.engine.store import get_store
from soc_tasks.testing import TaskFailedBehaviour, TaskFailedError, memory_queues
from tests.backends.sites.base import AheadClock, Site, is_idle
from tests.engine.running import until, worker_threads


class MemorySite(Site):
    """Runs tasks in the test's own thread, whatever their eta; names stay taken for good."""

    waits = False
    frees_names = False
    steers = False

    def __init__(self, queues):
        self._queues = queues

    def run(self):
        while True:
            try:
                self._queues.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
            except TaskFailedError:
                # Its last attempt; the others go on.
                continue
            return

    def list_waiting(self):
        get_backend().collect()
        return get_backend().tasks


@contextmanager
def memory_site(request):
    """Give a site on the memory backend."""
    with memory_queues() as queues:
        yield MemorySite(queues)


class EmbeddedSite(Site):
    """Runs tasks by a worker."""

    def __init__(self):
        self.clock = get_store("default").clock = AheadClock()

    def run(self):
        with worker_threads("default") as start:
            start(threads=4)
            until(lambda: is_idle(get_store("default")))

    def list_waiting(self):
        return get_backend().list_tasks()


@contextmanager
def embedded_site(request):
    """Give a site on the embedded backend."""
    request.getfixturevalue("settings").SOC_TASKS = {"BACKEND": "embedded"}
    yield EmbeddedSite()
