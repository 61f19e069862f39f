"""Worker processes: what the supervisor knows of each, and what each does."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from soc_tasks.engine.keeping import requests_spared
from soc_tasks.engine.pulse import Beat
from soc_tasks.engine.worker import Worker

logger = logging.getLogger("soc_tasks.engine")

#: Seconds before a process that died is replaced; doubled each time, until one has lived for so long.
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
#: Exit status of a process that wants to be replaced: no crash.
RECYCLED: Final = 75
#: What is kept from a child until it has handlers of its own.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Seconds between looks at what no signal and no pipe tells of, and between two beats of a child.
LOOK: Final = 1.0


@dataclass(slots=True)
class Child:
    """A worker process, or the place of one that is about to be replaced."""

    pid: int = 0
    reader: int = -1
    pause: float = FIRST_PAUSE
    start_at: float = 0.0
    started: float = 0.0
    #: What it told last, and when.
    beat: Beat | None = None
    heard: float = 0.0
    #: What was read of a line whose end is yet to come.
    rest: bytes = b""

    @property
    def ready(self) -> bool:
        """Tell whether it claims tasks."""
        return self.beat is not None and self.beat.ready

    def begin(self, now: float) -> None:
        """Note that it is being started."""
        self.started = now
        self.beat = None
        self.rest = b""

    def put_off(self, now: float) -> None:
        """Have it started again, later each time."""
        self.start_at = now + self.pause
        self.pause = min(LONGEST_PAUSE, self.pause * 2)

    def listen(self, now: float) -> None:
        """Read what it tells; close the pipe when it has ended."""
        told = os.read(self.reader, 4096)
        if not told:
            self.hang_up()
            return
        *lines, self.rest = (self.rest + told).split(b"\n")
        if lines:
            self.beat, self.heard = Beat.read(lines[-1]), now

    def hang_up(self) -> None:
        """Close the pipe."""
        if self.reader >= 0:
            os.close(self.reader)
        self.reader = -1

    def feel(self, now: float) -> Beat | None:
        """Return how it is, as far as it has told."""
        return None if self.beat is None else self.beat.later(now - self.heard)


def be_child(options: Mapping[str, Any], life_reader: int, writer: int, tell: Callable[[str], None] | None) -> NoReturn:
    """Work in a process that was just forked, and end it.

    Args:
        options: of the worker.
        life_reader: the end of a pipe whose other end closes with the supervisor.
        writer: where beats are told.
        tell: called with a line about what is waited for.
    """
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.set_blocking(writer, False)

        def beat() -> None:
            # A pipe that is full holds enough of them.
            with suppress(OSError):
                os.write(writer, worker.pulse.feel().write())

        worker = Worker(**options, ready=beat, recycle=True, tell=tell)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        threading.Thread(target=_outlive_nobody, args=(life_reader, worker), daemon=True).start()
        with requests_spared():
            failed = run_in_thread(worker, lambda: False, beat)
        # One that was stopped while it waited to be replaced may have cut tasks off like any other.
        replaced = worker.ending.recycled and (worker.ending.hung or not worker.cut_off)
        status = RECYCLED if replaced else int(failed or worker.cut_off)
    except BaseException:
        logger.exception("this worker process failed")
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing that the supervisor registered to be done at exit is this process's to do.
        os._exit(status)


def run_in_thread(worker: Worker, overdue: Callable[[], bool], look: Callable[[], None]) -> bool:
    """Run a worker in a thread of its own, so that the main thread can take signals; tell whether it failed.

    Args:
        worker: the worker.
        overdue: whether to wait no longer.
        look: called every second.
    """
    failed = []

    def work() -> None:
        try:
            worker.run()
        except BaseException:
            failed.append(True)
            logger.exception("the worker failed")

    thread = threading.Thread(target=work, name="soc_tasks-engine", daemon=True)
    thread.start()
    look_at = 0.0
    while thread.is_alive():
        if (now := time.monotonic()) >= look_at:
            look()
            look_at = now + LOOK
        thread.join(LOOK)
        if overdue():
            return True
    return bool(failed)


def start_anew() -> NoReturn:
    """Replace this process by the same command: its threads end, and their connections."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


def _outlive_nobody(life_reader: int, worker: Worker) -> None:
    """Stop when the supervisor has ended: its end of the pipe is closed then."""
    with suppress(OSError):
        os.read(life_reader, 1)
    worker.stop()


def reap(pid: int) -> int | None:
    """Return the exit code of a child that ended (negative: the signal), or None."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1
    return os.waitstatus_to_exitcode(status) if ended else None
