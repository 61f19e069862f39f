"""Processes that a sandbox consists of: each ends with the one that started it, however that ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from soc_tasks.engine.processes import describe
from soc_tasks.errors import ConfigurationError

#: Seconds between looks at what no event tells of.
LOOK: Final = 0.05
#: Lines of each process that are kept, to be shown if it ends by itself.
KEPT: Final = 40
#: Seconds that attempts get to end when the server is stopped, and that a process gets in all.
ATTEMPTS, GRACE = 2.0, 8.0

_READY: Final = re.compile(r"soc_tasks server ready: TASKS_EMULATOR_HOST=(\S+) keys=((http://[^\s/]+)/certs)")


class Child:
    """`python -m …` in a session of its own; a context manager.

    It holds the end of a pipe as its standard input, of which the other end is ours alone: when that is closed, for
    whatever reason, the child ends by itself.

    Args:
        name: what it is called.
        arguments: what comes after `python -m`.
        environment: variables beside those of this process.
        tell: called with the name and each line of its output, in a thread.
    """

    def __init__(
        self,
        name: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=KEPT)
        self._first: str | None = None
        self._tell = tell
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={
                **os.environ,
                # The same modules, wherever manage.py lies.
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                "PYTHONUNBUFFERED": "1",
                **(environment or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Ctrl-C is ours alone: it says in which order they end. A signal to its group reaches its own children.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"soc_tasks-{name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the number of its process."""
        return self._process.pid

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Return the match of the first of the kept lines that a pattern fits."""
        return next((match for line in list(self.lines) if (match := pattern.match(line))), None)

    def has_ended(self) -> bool:
        """Tell whether it is gone."""
        return self._process.poll() is not None

    def describe_end(self) -> str:
        """Return how it ended, and the end of its output."""
        self._reader.join(LOOK * 20)
        result = describe(self._process.wait())
        return f"The {self.name} ended by itself, with {result}. The end of its log:\n" + "\n".join(self.lines)

    def stop(self) -> None:
        """Ask it to end, and kill what is left of it after a while."""
        if self._process.poll() is None:
            self._send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
            if self._process.poll() is None:
                self._send(signal.SIGKILL)
                self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        # Its own children hold the other end of this pipe; they have seen the end of their standard input.
        self._reader.join(GRACE)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if self._tell is not None:
                # Where nobody listens any more, it is still read: the child is not to wait for that.
                with suppress(OSError):
                    self._tell(self.name, self.lines[-1])


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready.

    Args:
        child: its process.
        host: host and port of its API.
        certs_url: where its keys are.
        issuer: who its tokens say they come from.
    """

    child: Child
    host: str
    certs_url: str
    issuer: str


def start_server(
    stack: ExitStack,
    options: Sequence[str],
    wait: Callable[[], bool],
    *,
    port: int = 0,
    tell: Callable[[str, str], None] | None = None,
) -> RunningServer:
    """Start a server without a project, and return it when it is ready.

    Args:
        stack: ends it.
        options: more of its options.
        wait: waits a moment; returns whether to wait no longer.
        port: of its API; that of the keys is the next one. 0: any.
        tell: called with each line of its output.

    Raises:
        ConfigurationError: it ended, or there was no waiting any longer.
    """
    arguments = ("--port", str(port), "--grace", str(ATTEMPTS), "--until-eof", *options)
    child = stack.enter_context(Child("server", "soc_tasks.engine.server", *arguments, tell=tell))
    while (ready := child.find(_READY)) is None:
        if child.has_ended():
            raise ConfigurationError(child.describe_end())
        if wait():
            raise ConfigurationError("The server was not ready in time. Its log:\n" + "\n".join(child.lines))
    return RunningServer(child, ready[1], ready[2], ready[3])
