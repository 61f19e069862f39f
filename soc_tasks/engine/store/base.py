"""The contract of a store: where tasks, queues and workers are kept. One implementation for each kind of database.

Every method may be called from any thread, and uses Django's connection of that thread. Those that change something
are atomic. Rows are only ever settled by the worker that leases them: a worker whose lease was taken changes nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from soc_tasks.conf import get_queues
from soc_tasks.engine.clock import Clock, SystemClock
from soc_tasks.engine.records import MinuteRecord, QueueRecord, TaskRecord, WorkerRecord
from soc_tasks.engine.store.rows import Leased
from soc_tasks.engine.verdicts import Verdict
from soc_tasks.engine.wakeup import Listener
from soc_tasks.values import QueueOptions, Task

#: Queues that are meant; None: all.
Queues = Collection[str] | None

#: Nothing needs to keep quiet meanwhile.
NO_CARE: Final = nullcontext()

#: Stands in the names of the server's queues (server/), and in those of no site.
SERVED: Final = "/"


class Store(ABC):
    """Keeps the tasks of one database.

    Args:
        alias: the database.
        clock: tells what is due.
    """

    def __init__(self, alias: str, clock: Clock | None = None) -> None:
        self.alias = alias
        self.clock: Clock = clock or SystemClock()
        #: Tells the options of queues by name.
        self.options: Callable[[], Mapping[str, QueueOptions]] = get_queues
        #: Whether it works for the server, on the server's queues; else for a site, on the site's.
        self.serves = False
        #: Whether its workers do what was registered for regular upkeep (hooks.py).
        self.upkeep = True

    def means(self, queue: str, queues: Queues = None) -> bool:
        """Tell whether a queue is one of those that are meant."""
        return (queues is None or queue in queues) and (SERVED in queue) == self.serves

    @property
    def is_private(self) -> bool:
        """Tell whether no other process can see the database."""
        return False

    # What enqueues.

    @abstractmethod
    def add(self, tasks: Sequence[Task], now: int | None = None) -> None:
        """Keep new tasks, all or none, in the caller's transaction if it has one; wake workers when that commits.

        Args:
            tasks: the tasks.
            now: before which none is due, where the caller has looked at the clock already.

        Raises:
            TaskAlreadyExistsError: a name is taken; nothing was written.
            BackendUnavailableError: the database did not take it.
        """

    @abstractmethod
    def accept(self, tasks: Sequence[Task]) -> int:
        """Keep those of `tasks` whose names are free; return how many that were."""

    @abstractmethod
    def find_taken(self, tasks: Sequence[Task]) -> list[Task]:
        """Return those of `tasks` whose chosen names are taken.

        Raises:
            BackendUnavailableError: the database did not tell.
        """

    # What works.

    def find_risks(self) -> list[str]:
        """Return what is set in the database so that it may lose what it has committed, a sentence each."""
        return []

    @abstractmethod
    def is_ready(self) -> bool:
        """Tell whether the tables are there."""

    @abstractmethod
    def join(self, host: str, pid: int, born: int) -> int:
        """Enter a worker process; return the id under which it leases tasks."""

    @abstractmethod
    def leave(self, worker: int) -> None:
        """Strike a worker off that holds nothing any more; what it should still hold comes back as it was."""

    @abstractmethod
    def beat(self, worker: int) -> bool:
        """Note that a worker is alive; False: it was struck off, and must join again."""

    @abstractmethod
    def list_workers(self) -> list[WorkerRecord]:
        """Return the worker processes, oldest first."""

    @abstractmethod
    def reclaim(self, record: WorkerRecord, patience: float) -> int | None:
        """Strike a dead worker off and give its tasks back as suspects; uncounted but where one ran alone.

        Args:
            record: the worker as it was last seen; nothing happens if it has beaten since.
            patience: seconds. If the database was locked for longer, the worker may have waited as well.

        Returns:
            How many tasks came back, or None where nothing happened.
        """

    @abstractmethod
    def find_newest(self) -> int:
        """Return the highest id of a task that is kept; what is made later has higher ones.

        Unless it is made by a machine whose clock is behind, or by a process that began after this one's was set back.
        """

    @abstractmethod
    def shift_clock(self, by: int, newest: int) -> None:
        """Move along what waits after the clock was set: who waits for so many seconds does not wait longer or less.

        Tasks that were due stay due, in their order, and pending retries keep what is left of their delay. What is
        scheduled for a moment keeps that moment.

        Args:
            by: microseconds; below 0: the clock was set back.
            newest: what `find_newest` returned before that.
        """

    @abstractmethod
    def exchange(
        self,
        worker: int,
        verdicts: Sequence[Verdict],
        limit: int,
        queues: Queues = None,
        quiet: AbstractContextManager[None] = NO_CARE,
        each: int | None = None,
    ) -> list[Leased]:
        """Write verdicts down and claim up to `limit` due tasks, in one transaction; oldest first, fair among queues.

        A worker that was struck off claims nothing.

        Args:
            worker: who claims.
            verdicts: what came of tasks.
            limit: how many tasks are claimed at most.
            queues: of which queues; None: all.
            quiet: entered while statements run; where a transaction is everybody's turn, from its begin to its commit.
            each: how many tasks of a queue are claimed at most; None: `limit`.
        """

    @abstractmethod
    def claim_suspect(self, worker: int, queues: Queues = None) -> Leased | None:
        """Claim one task whose process died, to run it alone; its start is committed."""

    @abstractmethod
    def release_unknown(self, worker: int, known: Collection[int]) -> int:
        """Give back what a worker leases without knowing, after a commit whose answer was lost."""

    @abstractmethod
    def next_due(self, queues: Queues = None) -> int | None:
        """Return when something may be claimed next, in microseconds; past: now; None: not before something changes."""

    @abstractmethod
    def next_suspect(self, queues: Queues = None) -> int | None:
        """Return since when a suspect has been due, or None."""

    @abstractmethod
    def read_change_mark(self) -> object:
        """Return a value that differs when others have committed since; cheap. None: ask `next_due` instead."""

    def listen(self) -> Listener | None:
        """Return what hears that workers should look, where the database can tell; to be closed."""
        return None

    @abstractmethod
    def is_empty(self, queues: Queues = None) -> bool:
        """Tell whether nothing is due, running, or waits for a retry.

        What is scheduled or paused does not count, nor what waits for a worker that knows it.
        """

    @abstractmethod
    def count_retries(self, queues: Queues = None) -> tuple[int, int]:
        """Return how many tasks of queues that run wait to be tried again, and when the first of them is due."""

    @abstractmethod
    def count_unknown(self, queues: Queues = None) -> int:
        """Return how many tasks wait for a worker that knows their URL or their function."""

    @abstractmethod
    def sweep(self, *, retention: float, limit: int = 500) -> int:
        """Forget names that are free again, and exhaust tasks that are too old; return how many.

        A task's age counts from when it was created, or was first to run if that is later.

        Args:
            retention: seconds that a task is kept.
            limit: rows to look at; the next call goes on from there.
        """

    @property
    @abstractmethod
    def is_amid_sweep(self) -> bool:
        """Tell whether the last sweep did not look at all rows that may be old."""

    # What looks after it.

    @abstractmethod
    def list_queues(self, most: int | None = None) -> list[QueueRecord]:
        """Return the queues that have tasks or a state, by name.

        Args:
            most: up to where tasks are counted, of each kind; None: all are, which takes time where there are many.
        """

    @abstractmethod
    def list_heartbeats(self) -> list[int]:
        """Return when each worker of the site was last seen, microseconds."""

    @abstractmethod
    def add_minutes(self, records: Sequence[MinuteRecord]) -> None:
        """Add counts to what is kept of the same minutes and queues."""

    @abstractmethod
    def list_minutes(self, since: int) -> list[MinuteRecord]:
        """Return what came of attempts in the minutes that began at `since` or later, in their order."""

    @abstractmethod
    def list_tasks(self, queue: str | None = None, *, limit: int = 100) -> list[TaskRecord]:
        """Return tasks without their bodies: running ones, then by when they are due."""

    @abstractmethod
    def get_task(self, queue: str, name: str) -> TaskRecord | None:
        """Return one task."""

    @abstractmethod
    def run_now(self, queue: str, name: str) -> bool:
        """Make a task due at once, past pause and rates; False: there is none that waits."""

    @abstractmethod
    def delete(self, queue: str, name: str) -> bool:
        """Delete a task, running or not; False: there is none."""

    @abstractmethod
    def set_paused(self, queue: str, paused: bool) -> None:
        """Pause a queue, or let it run again."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Delete the tasks that are in a queue now; return how many there were."""
