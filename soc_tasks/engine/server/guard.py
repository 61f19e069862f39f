"""One server works on a database: it has queues and attempts in memory that another would not see change.

The server's row among the workers says who it is, and the table takes one such row only. A row that a killed server has
left is struck off at once where its machine can tell, else when its beats have stood still for a lease.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from soc_tasks.conf import get_settings
from soc_tasks.engine.processes import can_tell, is_gone, this_host
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
    reaper = Reaper(store.clock, lease)
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
        here = record.host == this_host() and can_tell()
        if (here and not is_gone(record.pid, record.born)) or (first is not None and record.beats != first.beats):
            raise _refuse(record, here=here)
        if first is None and not here:
            logger.warning(
                "the server %s may work on this database; looking for %g s whether it is alive",
                _describe(record, here=here),
                lease,
            )
        first = record
        if here or reaper.find_dead([record]):
            logger.warning("the server %s is dead; this one takes its place", _describe(record, here=here))
            store.reclaim(record, reaper.patience)
        else:
            stop.wait(lease / 20)
    return False


def _describe(record: WorkerRecord, *, here: bool) -> str:
    return f"with process id {record.pid}" + ("" if here else f" on {record.host.partition(' ')[0]}")


def _refuse(record: WorkerRecord, *, here: bool) -> ServedElsewhereError:
    return ServedElsewhereError(
        f"Another server works on this database, {_describe(record, here=here)}, and there can be one only: end that, "
        "or give this one a file of its own by --database PATH."
    )
