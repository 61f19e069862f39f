"""Who a process is, whether one of this machine is still there, and how it ended."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


def this_host() -> str:
    """Return what names this machine, its boot, and the space in which process ids mean something."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)[:255]


def born(pid: int) -> int:
    """Return when a process started, in ticks since the machine did; 0 where that cannot be told."""
    try:
        # A name may be any bytes.
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    # The name, in parentheses, may hold spaces and parentheses; the start is the 20th field behind it.
    return int(stat.rpartition(b")")[2].split()[19])


def is_gone(pid: int, started: int) -> bool:
    """Tell whether a process of this host has certainly ended; False where that cannot be told."""
    if not _can_tell():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    now = born(pid)
    # Another process may have the number now. A zombie runs nothing any more, but its parent will tell.
    return started > 0 and now > 0 and now != started


def describe(result: int) -> str:
    """Return an exit code as a message names it."""
    return f"signal {signal.Signals(-result).name}" if result < 0 else f"status {result}"


@lru_cache(maxsize=1)
def _can_tell() -> bool:
    return os.name == "posix"
