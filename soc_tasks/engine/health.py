"""The health file of `tasks run --health-file`, and the check that reads it without loading the site.

    python -m soc_tasks.engine.health PATH [--max-age SECONDS] [--ready]

It exits with 0 where the worker is well and 1 where it is not, and says why in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

from soc_tasks.engine.pulse import TROUBLE, Beat


class HealthFile:
    """Written by the process that was started, every second; how old it is tells whether that lives.

    Args:
        path: where it lies.
        patience: seconds for which an engine thread may stand still.
    """

    def __init__(self, path: str, patience: float) -> None:
        self._path = os.path.abspath(path)
        self._patience = max(patience, TROUBLE)

    def write(
        self,
        beats: Sequence[tuple[int, Beat | None]],
        *,
        begun: bool = False,
        draining: bool = False,
        processes: int = 1,
        restarts: int = 0,
    ) -> None:
        """Write how it is now, in one step.

        Args:
            beats: process ids and how each is; a process that has not told yet is None.
            begun: whether all of them were ready once.
            draining: whether the worker was told to end.
            processes: how many there should be.
            restarts: how many were replaced.

        Raises:
            OSError: the file cannot be written.
        """
        workers = [
            {
                "pid": pid,
                "ready": beat is not None and beat.ready,
                "beat_age": None if beat is None else round(beat.age, 3),
                "database_age": None if beat is None else round(beat.database, 3),
                "hangs": beat is not None and beat.hangs(self._patience),
            }
            for pid, beat in beats
        ]
        trouble = [f"process {worker['pid']} hangs" for worker in workers if worker["hangs"]]
        # What a process knows of its database is old when it hangs.
        reached = not any(
            beat is not None and beat.lacks_database and not beat.hangs(self._patience) for _, beat in beats
        )
        if not reached:
            trouble.append("the database is not to be had")
        ready = sum(1 for worker in workers if worker["ready"])
        if begun and not ready:
            trouble.append("no process is ready")
        state = "draining" if draining else "starting" if not begun else "trouble" if trouble else "ready"
        self._replace(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "version": _version(),
                "pid": os.getpid(),
                "state": state,
                "trouble": trouble,
                "processes": processes,
                "ready": ready,
                "restarts": restarts,
                "database": reached,
                "workers": workers,
            }
        )

    def _replace(self, report: Mapping[str, Any]) -> None:
        draft = f"{self._path}.{os.getpid()}"
        with suppress(FileNotFoundError):
            os.unlink(draft)
        # Not through a link that somebody else put there; readable for whoever checks.
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, json.dumps(report).encode() + b"\n")
        finally:
            os.close(file)
        os.replace(draft, self._path)

    def remove(self) -> None:
        """Remove the file: nothing runs any more."""
        with suppress(OSError):
            os.unlink(self._path)


def _version() -> str:
    # By name: the package lies above its rooms.
    return str(import_module("soc_tasks").__version__)


def judge(report: Mapping[str, Any], age: float, *, max_age: float, ready: bool) -> tuple[bool, str]:
    """Tell whether a worker is well, and why.

    Args:
        report: what its file holds.
        age: how old that is, in seconds.
        max_age: how old it may be; the clock may have been set, either way.
        ready: whether it must also be ready, with its database.
    """
    state = report["state"]
    line = f"{state}, {report['ready']} of {report['processes']} processes ready, pid {report['pid']}"
    if report["trouble"]:
        line += f": {', '.join(report['trouble'])}"
    if abs(age) > max_age:
        return False, f"written {age:.0f} s ago, when it was {line}"
    hangs = any(worker["hangs"] for worker in report["workers"])
    if hangs or state == "starting" or (state == "trouble" and not report["ready"]):
        return False, line
    return (state == "ready" or not ready), line


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a health file; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m soc_tasks.engine.health", description="Check the health file of `manage.py tasks run`."
    )
    parser.add_argument("path", help="what was given as --health-file")
    parser.add_argument(
        "--max-age", type=float, default=10.0, metavar="SECONDS", help="how old it may be (default: %(default)s)"
    )
    parser.add_argument("--ready", action="store_true", help="fail also while it drains, or lacks its database")
    options = parser.parse_args(arguments)
    try:
        with open(options.path, encoding="utf-8") as file:
            report = json.load(file)
        age = time.time() - datetime.fromisoformat(report["time"]).timestamp()
        well, line = judge(report, age, max_age=options.max_age, ready=options.ready)
    except FileNotFoundError:
        well, line = False, f"there is no {options.path}: no worker runs"
    except (OSError, ValueError, KeyError, TypeError) as error:
        well, line = False, f"{options.path} cannot be read: {error!r}"
    sys.stdout.write(f"{'healthy' if well else 'unhealthy'}: {line}\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
