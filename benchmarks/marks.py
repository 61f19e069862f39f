"""Marks that all processes share, in a mapped file: a task says that it ran, and when, in about a microsecond."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

SLOTS = 256
#: Of each process: how many ran, and the nanoseconds of the monotonic clock of the first and of the last.
_SLOT = struct.Struct("qqq")
_lock = threading.Lock()
_map: mmap.mmap | None = None


class Seen(NamedTuple):
    """How many tasks ran in all, and when the first and the last did, in seconds of the monotonic clock."""

    count: int
    first: float
    last: float


def create(path: Path) -> None:
    """Make the file, all zero."""
    path.write_bytes(bytes(_SLOT.size * SLOTS))


def reset() -> None:
    """Begin anew, while no task runs."""
    _open()[:] = bytes(_SLOT.size * SLOTS)


def _open() -> mmap.mmap:
    global _map
    if _map is None:
        with Path(os.environ["SOC_TASKS_BENCH_MARKS"]).open("r+b") as file:
            _map = mmap.mmap(file.fileno(), _SLOT.size * SLOTS)
    return _map


def hit() -> None:
    """Count one task; each process has a slot of its own."""
    offset, now = _SLOT.size * (os.getpid() % SLOTS), time.monotonic_ns()
    with _lock:
        mapped = _open()
        count, first, _ = _SLOT.unpack_from(mapped, offset)
        _SLOT.pack_into(mapped, offset, count + 1, first or now, now)


def look() -> Seen:
    """Return what has run up to now."""
    slots = [slot for slot in _SLOT.iter_unpack(_open()) if slot[0]]
    if not slots:
        return Seen(0, 0.0, 0.0)
    first, last = min(slot[1] for slot in slots), max(slot[2] for slot in slots)
    return Seen(sum(slot[0] for slot in slots), first / 1e9, last / 1e9)


def wait_for(count: int, limit: float = 120.0, pause: float = 0.005) -> Seen:
    """Return when so many have run.

    Raises:
        TimeoutError: nothing ran for `limit` seconds.
    """
    before, end = -1, 0.0
    while True:
        seen = look()
        if seen.count >= count:
            return seen
        now = time.monotonic()
        if seen.count != before:
            before, end = seen.count, now + limit
        elif now > end:
            raise TimeoutError(f"{seen.count} of {count} tasks ran, and for {limit:g} s no other one")
        time.sleep(pause)
