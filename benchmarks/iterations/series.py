"""When batches came, and how much memory there was: what must stay flat however many rows there are."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: Seconds and bytes, for each batch.
moments: list[float] = []
memory: list[int] = []
_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_memory() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def note() -> None:
    """Note a batch."""
    moments.append(time.perf_counter())
    memory.append(read_memory())
