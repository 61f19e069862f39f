"""Processes that are measured: started, ended, and what they take."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(*commands: list[str]) -> Iterator[list[int]]:
    """Have processes run for as long as the block lasts; give their ids."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            # What the measuring process itself prints is its figures.
            output = sys.stderr if "SOC_TASKS_BENCH_LOUD" in os.environ else subprocess.DEVNULL
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output))
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def running_redis(folder: Path) -> Iterator[tuple[int, list[int]]]:
    """Have a Redis that writes its log to the disk every second; give its port and its process."""
    port = find_port()
    log = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
    with running(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *log]) as found:
        wait_for_port(port)
        yield port, found


def find_missing_redis() -> str | None:
    """Return what is missing for `running_redis`, and how to get it."""
    return None if shutil.which("redis-server") else "there is no redis-server; apt-get install redis-server"


def python(*arguments: str) -> list[str]:
    """Return a command of this environment's Python."""
    return [sys.executable, *arguments]


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def wait_for_port(port: int, limit: float = 30.0) -> None:
    """Return when something listens on a port."""
    end = time.monotonic() + limit
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def find_tree(roots: Iterable[int]) -> list[int]:
    """Return these processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    tree = list(roots)
    for process in tree:
        tree.extend(children.get(process, ()))
    return tree


def read_processor(roots: Iterable[int]) -> float:
    """Return the seconds of processor time that processes and their descendants took, those that ended included."""
    ticks = 0
    for process in find_tree(roots):
        with suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            # Its own, and that of the children it has waited for.
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICK


def read_idle_processor(roots: Iterable[int]) -> float:
    """Return the same of the threads that live, to the nanosecond: for what takes less than a tick."""
    spent = 0
    for process in find_tree(roots):
        for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):
                spent += int(thread.read_text().split()[0])
    return spent / 1e9


def read_memory(roots: Iterable[int]) -> int:
    """Return the bytes that processes and their descendants hold together, shared pages divided among them."""
    held = 0
    for process in find_tree(roots):
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    held += int(line.split()[1]) * 1024
    return held
