"""Work: is anybody at it, and does anything stand still?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.db import Error

from soc_tasks.logic.overview import read_overview
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "work"


def examine() -> Iterator[Finding]:
    """Tell of workers, and all alerts of the overview."""
    try:
        overview = read_overview()
    except Error:
        # The family of the database has said what is wrong with it.
        return
    if overview.workers:
        last = "" if overview.last_seen is None else f", the last at {overview.last_seen.isoformat(timespec='seconds')}"
        yield Finding(FAMILY, OK, f"{overview.workers} worker processes were seen{last}.")
    for alert in overview.alerts:
        yield Finding(FAMILY, FAIL if alert.level == "error" else WARN, alert.message, alert.mend)
    if not overview.alerts:
        yield Finding(FAMILY, OK, "Nothing stands still: no late tasks, no outbox that waits, no dead letters of late.")
