"""Turns: workers of one SQLite database write one after the other.

SQLite lets one connection write and lets the others try again after growing pauses, so that the busiest worker starves
the rest. A lock on a file beside the database makes a queue of them. It is only advice: SQLite's own lock keeps the
data right, and whoever waits too long (its holder may be stopped) goes on without a turn.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from types import TracebackType
from typing import Final

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows
    fcntl = None  # type: ignore[assignment]

#: Seconds after which a worker writes without having its turn.
PATIENCE: Final = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_05, 0.000_5


class Turn:
    """A place in the queue of writers, as a context manager.

    Args:
        path: the file that is locked; None: there is one process only.
        like: the file whose mode it gets: whoever may write the one takes turns, and nobody else. None: its owner only.
    """

    def __init__(self, path: str | None, like: str | None = None) -> None:
        self._path = path
        self._like = like
        self._thread_lock = threading.Lock()
        self._file: int | None = None
        self._process = 0
        self._held = False

    def __enter__(self) -> None:
        # Threads of one process share the open file, and with it the file's lock.
        self._thread_lock.acquire()
        file = self._open()
        if file is None:
            return
        limit, pause = time.monotonic() + PATIENCE, _FIRST_PAUSE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > limit:
                    return
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                self._held = True
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._held:
            self._held = False
            with contextlib.suppress(OSError):
                fcntl.flock(self._file or 0, fcntl.LOCK_UN)
        self._thread_lock.release()

    def _open(self) -> int | None:
        """Return the open file of this process; a child that was forked must not use its parent's."""
        if fcntl is None or self._path is None:
            return None
        if self._process != os.getpid():
            try:
                self._file = self._open_alike(self._path)
            except OSError:
                # A directory that only holds the database, or of another user: no turns then.
                self._file = None
            self._process = os.getpid()
        return self._file

    def _open_alike(self, path: str) -> int:
        """Open the file, made or brought to the mode of the other."""
        mode = 0o600
        if self._like is not None:
            with contextlib.suppress(OSError):
                mode = os.stat(self._like).st_mode & 0o666
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        # The umask may have taken more away than others can do without; who does not own the file leaves it as it is.
        if os.fstat(file).st_mode & 0o777 != mode:
            with contextlib.suppress(OSError):
                os.fchmod(file, mode)
        return file
