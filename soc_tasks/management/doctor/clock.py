"""Clocks: does this machine agree with the database's, by which tasks are due?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from django.db import Error, connections

from soc_tasks.conf import get_settings
from soc_tasks.engine.clock import SECOND
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "clock"
#: Seconds from which a difference is worth a word, and from which signed calls begin to be refused (300 s) soon.
NOTABLE, GRAVE = 2.0, 60.0
_MEND: Final = "Have both machines keep the time by NTP: timedatectl set-ntp true"


def examine() -> Iterator[Finding]:
    """Compare the clocks, where the database has one of its own."""
    settings = get_settings()
    if settings.state == "datastore" and settings.backend != "embedded":
        # Nothing of ours is in a database.
        return
    alias = settings.database
    if alias not in connections or connections[alias].vendor == "sqlite":
        yield Finding(FAMILY, OK, "Database and processes share the clock of this machine.")
        return
    from soc_tasks.engine.store import get_store
    from soc_tasks.engine.store.locking import LockingStore

    store = get_store(alias)
    if not isinstance(store, LockingStore):
        return
    try:
        store.select("SELECT 1")
        before = time.time()
        there = store.read_time() / SECOND
        after = time.time()
    except Error:
        # The family of the database has said that it is not to be had.
        return
    yield judge(there - (before + after) / 2)


def judge(skew: float) -> Finding:
    """Return what a difference means: seconds by which the database is ahead."""
    size, which = abs(skew), "ahead of" if skew > 0 else "behind"
    if size < NOTABLE:
        return Finding(FAMILY, OK, f"This machine and the database agree within {max(size, 0.001):.3f} s.")
    return Finding(
        FAMILY, FAIL if size >= GRAVE else WARN, f"The database's clock is {size:.1f} s {which} this machine's.", _MEND
    )
