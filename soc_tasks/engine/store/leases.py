"""Workers and what they lease: joining, beating, dying; and tasks whose process died."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, Final

from django.db import IntegrityError, connections, transaction
from django.db.backends.utils import CursorWrapper

from soc_tasks.engine import hooks
from soc_tasks.engine.rates import AT_ONCE
from soc_tasks.engine.records import WorkerRecord
from soc_tasks.engine.store.base import SERVED, Queues
from soc_tasks.engine.store.rows import COLUMNS, QUEUES, TASKS, WORKERS, Leased, State
from soc_tasks.engine.store.sql import BACK, OWNED, RETURN, SqlStore
from soc_tasks.engine.verdicts import NO_ANSWER
from soc_tasks.errors import ConfigurationError

logger = logging.getLogger("soc_tasks.engine")

#: A task that was alone in its process when that died for this many times is given up.
MOST_CRASHES: Final = 3

_SUSPECTS = (
    f"SELECT {COLUMNS} FROM {TASKS} WHERE state = {State.SUSPECT:d} AND due <= %s"
    f" AND NOT (due > 0 AND queue IN (SELECT name FROM {QUEUES} WHERE paused = %s))"
)


class ServedElsewhereError(ConfigurationError):
    """Another server works on the database."""


class LeaseStore(SqlStore):
    """The part of a store that knows workers."""

    # Workers.

    def is_ready(self) -> bool:
        """Tell whether the tables are there."""
        connection = connections[self.alias]
        with connection.cursor() as cursor:
            return {TASKS, QUEUES, WORKERS} <= set(connection.introspection.table_names(cursor))

    def join(self, host: str, pid: int, born: int) -> int:
        """Enter a worker process; that of the server only where there is no other.

        Raises:
            ServedElsewhereError: there is another.
        """
        now = self.clock.now()
        values: dict[str, Any] = {"host": host, "pid": pid, "born": born, "started": now, "heartbeat": now}
        if self.serves:
            values["serves"] = True
        try:
            with self.writing() as cursor:
                return self.insert_worker(cursor, values)
        except IntegrityError as error:
            raise ServedElsewhereError("another server works on this database") from error

    @abstractmethod
    def insert_worker(self, cursor: CursorWrapper, values: Mapping[str, Any]) -> int:
        """Insert a worker's row; return its id."""

    def leave(self, worker: int) -> None:
        """Strike a worker off; what it still holds comes back as it was."""
        with self.writing() as cursor:
            cursor.execute(f"{BACK} WHERE state = {State.RUNNING:d} AND owner = %s", (True, False, worker))
            cursor.execute(f"DELETE FROM {WORKERS} WHERE id = %s", (worker,))

    def release_unknown(self, worker: int, known: Collection[int]) -> int:
        """Give back what a worker leases without knowing."""
        with self.writing() as cursor:
            held = {
                row
                for (row,) in self.fetch(cursor, f"SELECT id FROM {TASKS} WHERE state = 1 AND owner = %s", (worker,))
            }
            unknown = held - set(known)
            if unknown:
                cursor.executemany(RETURN, [(True, False, row, worker) for row in unknown])
        return len(unknown)

    def beat(self, worker: int) -> bool:
        """Note that a worker is alive."""
        with self.writing() as cursor:
            cursor.execute(
                f"UPDATE {WORKERS} SET heartbeat = %s, beats = beats + 1 WHERE id = %s", (self.clock.now(), worker)
            )
            return bool(cursor.rowcount)

    def list_workers(self) -> list[WorkerRecord]:
        """Return the worker processes, oldest first."""
        columns = ", ".join(WorkerRecord._fields)
        return [WorkerRecord._make(row) for row in self.select(f"SELECT {columns} FROM {WORKERS} ORDER BY id")]

    def list_heartbeats(self) -> list[int]:
        """Return when each worker of the site was last seen."""
        return [beat for (beat,) in self.select(f"SELECT heartbeat FROM {WORKERS} WHERE serves IS NULL ORDER BY id")]

    def find_server(self) -> WorkerRecord | None:
        """Return the process of the server, if there is one."""
        columns = ", ".join(WorkerRecord._fields)
        rows = self.select(f"SELECT {columns} FROM {WORKERS} WHERE serves = %s", (True,))
        return WorkerRecord._make(rows[0]) if rows else None

    def reclaim(self, record: WorkerRecord, patience: float) -> int | None:
        """Strike a dead worker off and give its tasks back as suspects."""
        asked = self.clock.monotonic()
        with self.writing() as cursor:
            if self.clock.monotonic() - asked > patience:
                return None
            cursor.execute(f"DELETE FROM {WORKERS} WHERE id = %s AND beats = %s", (record.id, record.beats))
            if cursor.rowcount != 1:
                return None
            running = f"FROM {TASKS} WHERE state = {State.RUNNING:d} AND owner = %s AND alone = %s"
            alone = [Leased._make(row) for row in self.fetch(cursor, f"SELECT {COLUMNS} {running}", (record.id, True))]
            for leased in alone:
                self._blame(cursor, leased)
            # What the server called runs elsewhere, and ends no process here.
            cursor.execute(
                f"UPDATE {TASKS} SET state = {State.WAITING:d}, owner = NULL"
                f" WHERE state = {State.RUNNING:d} AND owner = %s AND queue LIKE %s",
                (record.id, f"%{SERVED}%"),
            )
            served = max(0, int(cursor.rowcount))
            cursor.execute(
                f"UPDATE {TASKS} SET state = {State.SUSPECT:d}, owner = NULL"
                f" WHERE state = {State.RUNNING:d} AND owner = %s",
                (record.id,),
            )
            return len(alone) + served + max(0, int(cursor.rowcount))

    # Suspects.

    def _find_suspects(self, queues: Queues) -> list[Leased]:
        names = sorted(queues or ())
        if self.serves or (queues is not None and not names):
            return []
        full = self._find_full()
        among = f" AND queue IN ({', '.join(['%s'] * len(names))})" if names else ""
        aside = f" AND NOT (due > 0 AND queue IN ({', '.join(['%s'] * len(full))}))" if full else ""
        rows = self.select(
            f"{_SUSPECTS}{among}{aside} ORDER BY due, id LIMIT 10", (self.clock.now(), True, *names, *full)
        )
        return [Leased._make(row) for row in rows]

    def _find_full(self) -> list[str]:
        """Return the queues of which as many tasks run as may at one time."""
        limits = {name: queue.rate_max_concurrent for name, queue in self.options().items()}
        if not any(limits.values()):
            return []
        with self.cursor() as cursor:
            running = self._count_running(cursor)
        return [name for name, most in limits.items() if most is not None and running.get(name, 0) >= most]

    def _has_room(self, cursor: CursorWrapper, leased: Leased) -> bool:
        """Tell whether one more task of a queue may run, and see to it that nobody else starts it meanwhile."""
        queue = self.options().get(leased.queue)
        if queue is None or queue.rate_max_concurrent is None or leased.due <= AT_ONCE:
            return True
        return leased.queue in self.lock_queues(cursor, [leased.queue]) and leased.queue not in self._find_full()

    def next_suspect(self, queues: Queues = None) -> int | None:
        """Return since when a suspect has been due, or None."""
        found = self._find_suspects(queues)
        return found[0].due if found else None

    def claim_suspect(self, worker: int, queues: Queues = None) -> Leased | None:
        """Claim one suspect, to run it alone."""
        with self.writing() as cursor:
            for leased in self._find_suspects(queues):
                if not self._has_room(cursor, leased):
                    continue
                progress = self._ask_progress(leased)
                cursor.execute(
                    f"UPDATE {TASKS} SET state = {State.RUNNING:d}, owner = %s, alone = %s, progress = %s"
                    f" WHERE id = %s AND state = {State.SUSPECT:d} AND EXISTS (SELECT 1 FROM {WORKERS} WHERE id = %s)",
                    (worker, True, progress, leased.id, worker),
                )
                if cursor.rowcount == 1:
                    return leased._replace(owner=worker, alone=True, progress=progress)
        return None

    def _ask_progress(self, leased: Leased) -> str:
        try:
            with transaction.atomic(using=self.alias):
                return hooks.ask_progress(leased.to_task())
        except Exception:
            logger.exception("could not tell how far task %s of queue %s has come", leased.name, leased.queue)
            return ""

    def _blame(self, cursor: CursorWrapper, leased: Leased) -> None:
        """Blame a task that was alone in its process when that died, unless it got further than before."""
        moved = self._ask_progress(leased) != leased.progress
        crashes = 0 if moved else leased.crashes + 1
        if crashes >= MOST_CRASHES and self._exhaust(cursor, leased, leased.attempts, NO_ANSWER):
            logger.error(
                "task %s of queue %s ended its process %d times and was given up", leased.name, leased.queue, crashes
            )
            return
        cursor.execute(
            f"UPDATE {TASKS} SET state = {State.SUSPECT:d}, owner = NULL, alone = %s, crashes = %s {OWNED}",
            (False, crashes, leased.id, leased.owner),
        )
        hooks.tell_crash(leased.to_task(), leased.attempts)
