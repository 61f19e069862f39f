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
    fields = _read_stat(pid)
    return int(fields[19]) if fields else 0


def is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and its parent has not asked yet."""
    return _read_stat(pid)[:1] == [b"Z"]


def _read_stat(pid: int) -> list[bytes]:
    """Return what /proc tells of a process behind its name; nothing where there is none."""
    try:
        # A name may be any bytes.
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    # The name, in parentheses, may hold spaces and parentheses.
    return stat.rpartition(b")")[2].split()


def is_gone(pid: int, started: int) -> bool:
    """Tell whether a process of this host has certainly ended; False where that cannot be told."""
    if not can_tell():
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
def can_tell() -> bool:
    """Tell whether it can be told of a process of this host whether it has ended."""
    return os.name == "posix"
