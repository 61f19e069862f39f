"""SQLite: is it set up for a site and workers that write at the same time?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.db import connections

from soc_tasks.conf import get_settings
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "sqlite"
#: Seconds to wait for the write lock; Django's default is 5.
ENOUGH: Final = 10.0


def examine() -> Iterator[Finding]:
    """Look at journal, synchronous, timeout and how transactions begin."""
    alias = get_settings().database
    if alias not in connections or connections[alias].vendor != "sqlite":
        return
    connection: Any = connections[alias]
    where = f"DATABASES[{alias!r}]['OPTIONS']"
    if connection.is_in_memory_db():
        yield Finding(
            FAMILY, WARN, "The database lives in this process's memory: no worker sees it.", "Give it a file as NAME."
        )
        return
    with connection.cursor() as cursor:
        journal, synchronous = (
            cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        )
    good = True
    if journal != "wal":
        good = False
        yield Finding(
            FAMILY,
            WARN,
            f"journal_mode is {journal}: whoever reads waits for whoever writes.",
            f"Set {where}['init_command'] to 'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL'.",
        )
    if synchronous == 0:
        good = False
        yield Finding(
            FAMILY,
            FAIL,
            "synchronous is OFF: a power cut may destroy the database, tasks included.",
            f"Have {where}['init_command'] set 'PRAGMA synchronous=NORMAL', or FULL.",
        )
    timeout = connection.settings_dict.get("OPTIONS", {}).get("timeout", 5)
    if timeout < ENOUGH:
        good = False
        yield Finding(
            FAMILY,
            WARN,
            f"A writer waits {timeout:g} s for its turn, and fails with 'database is locked' then.",
            f"Set {where}['timeout'] to 20.",
        )
    mode = str(connection.transaction_mode or "DEFERRED")
    if good:
        yield Finding(FAMILY, OK, f"WAL, synchronous={synchronous}, timeout {timeout:g} s, transactions begin {mode}.")
