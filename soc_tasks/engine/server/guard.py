"""One server works on a database: it has queues and attempts in memory that another would not see change.

The server's row among the workers says who it is, and the table takes one such row only. A row that a killed server has
left is struck off at once where its machine can tell, else when its beats have stood still for a lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from soc_tasks.conf import get_settings
from soc_tasks.engine.processes import can_tell, is_gone, is_zombie, this_host
from soc_tasks.engine.reaper import Reaper
from soc_tasks.engine.records import WorkerRecord
from soc_tasks.engine.store.leases import LeaseStore, ServedElsewhereError

logger = logging.getLogger("soc_tasks.engine")


def enter(store: LeaseStore, join: Callable[[], None], stop: threading.Event) -> bool:
    """Enter this process as the server; wait for a lease at most where nobody can tell whether another lives.

    Args:
        store: keeps the workers.
        join: enters it, or raises ServedElsewhereError.
        stop: ends the waiting.

    Returns:
        False where it was stopped.

    Raises:
        ServedElsewhereError: another server is alive.
    """
    lease = get_settings().lease_seconds
    reaper = Reaper(store.clock, lease, gone=_has_ended)
    first: WorkerRecord | None = None
    while not stop.is_set():
        try:
            join()
            return True
        except ServedElsewhereError:
            record = store.find_server()
        if record is None:
            # It left in between.
            continue
        if reaper.find_dead([record]):
            logger.warning("the server %s is dead; this one takes its place", _describe(record))
            store.reclaim(record, reaper.patience)
        elif _is_alive(record, first):
            raise ServedElsewhereError(
                f"Another server works on this database, {_describe(record)}, and there can be one only: end that, or "
                "give this one a file of its own by --database PATH."
            )
        else:
            if first is None:
                logger.warning(
                    "the server %s may work on this database; looking for %g s whether it is alive",
                    _describe(record),
                    lease,
                )
            stop.wait(lease / 20)
        first = record
    return False


def _has_ended(pid: int, started: int) -> bool:
    return is_gone(pid, started) or (can_tell() and is_zombie(pid))


def _is_alive(record: WorkerRecord, first: WorkerRecord | None) -> bool:
    """Tell whether a server is alive that was not found dead: it is a process of this machine, or has beaten since."""
    if record.host == this_host() and can_tell() and record.born:
        return True
    return first is not None and (record.id, record.beats) != (first.id, first.beats)


def _describe(record: WorkerRecord) -> str:
    where = "" if record.host == this_host() else f" on {record.host.partition(' ')[0]}"
    return f"with process id {record.pid}{where}"
