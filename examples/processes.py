"""Processes that the demo starts: each with a log, in a group of its own, and always ended by those who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Process:
    """`manage.py`, or another program of Python's, as a process group of its own; a context manager.

    Args:
        arguments: what comes after the program.
        program: what comes after `python`.
        log: file that its output is added to; None leaves it where ours goes.
    """

    def __init__(self, *arguments: str, program: Sequence[str] = ("manage.py",), log: Path | None = None) -> None:
        self.log = log
        output = log.open("ab") if log else None
        try:
            self._process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=ROOT,
                # Some end when this does, which we never write to: when we are gone.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT if output else None,
                # Its own session: a kill can reach it with all its children, and the terminal's Ctrl-C only us.
                start_new_session=True,
            )
        finally:
            if output:
                output.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def has_ended(self) -> bool:
        """Return whether the process is gone, by itself or not."""
        return self._look(os.WNOHANG) is not None

    def wait(self) -> int:
        """Wait until it ends; return its exit status (negative: the signal)."""
        found = self._look(0)
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def kill(self) -> None:
        """Kill it and its children at once (SIGKILL): nothing in there gets to say a last word."""
        if self._process.returncode is None:
            self._send(signal.SIGKILL)
            self._process.wait()
            if self._process.stdin:
                self._process.stdin.close()

    def stop(self, grace: float = 8.0) -> None:
        """Ask it to end, and kill what is left of its group after that time."""
        if self._process.returncode is not None:
            return
        self._send(signal.SIGTERM)
        end = time.monotonic() + grace
        while not self.has_ended() and time.monotonic() < end:
            time.sleep(0.02)
        self.kill()

    def read_log(self, lines: int = 40) -> str:
        """Return the end of its log."""
        if self.log is None or not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _look(self, options: int) -> os.waitid_result | None:
        # WNOWAIT leaves the process to be waited for: until `kill` does, its id can go to no one else, and so a signal
        # to its group can hit no stranger.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | options)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
