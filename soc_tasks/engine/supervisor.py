"""`tasks run`: worker processes under one that starts them, starts them again when they die, and passes signals on.

The supervisor loads the site once and forks; a child that dies is replaced in milliseconds. It holds no database
connection and no thread. A child ends gracefully on SIGTERM, or when the supervisor is gone (its end of a pipe closes).

A thread cannot be stopped: one whose attempt outlived its deadline keeps its memory, its connections and, on SQLite,
the write lock of its transaction until its process ends. A worker that has such a thread ends, and is replaced at once.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from django.db import connections
from django.urls import get_resolver

from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.engine.worker import Worker

logger = logging.getLogger("soc_tasks.engine")

#: Seconds beyond the grace period in which a process hands its leases back.
HAND_BACK: Final = 5.0
#: Seconds before a process that died is replaced; doubled each time, until one has lived for so long.
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
#: Exit status of a process that wants to be replaced: no crash.
RECYCLED: Final = 75
#: What is kept from a child until it has handlers of its own.
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Seconds between looks at what no signal and no pipe tells of.
LOOK: Final = 1.0


@dataclass(slots=True)
class _Child:
    """A worker process, or the place of one that is about to be replaced."""

    pid: int = 0
    reader: int = -1
    ready: bool = False
    pause: float = FIRST_PAUSE
    start_at: float = 0.0
    started: float = 0.0

    def put_off(self, now: float) -> None:
        """Have it started again, later each time."""
        self.start_at = now + self.pause
        self.pause = min(LONGEST_PAUSE, self.pause * 2)


class Supervisor:
    """Runs workers in one or more processes.

    Args:
        alias: the database.
        processes: how many processes; 1 works in this one.
        threads: how many threads each has.
        queues: the queues to work on; None: all.
        until_empty: whether to end when nothing is left to do.
        grace: seconds that running tasks get when stopped.
        ready: called when every process has begun to work.
        tell: called with a line about what is waited for, while `until_empty` waits.
        restarts: whether this process may start its own command line anew, to get rid of a thread that hangs.
    """

    def __init__(
        self,
        alias: str,
        *,
        processes: int,
        threads: int,
        queues: Collection[str] | None = None,
        until_empty: bool = False,
        grace: float = 25.0,
        ready: Callable[[], None] | None = None,
        tell: Callable[[str], None] | None = None,
        restarts: bool = False,
    ) -> None:
        self._restarts = restarts
        self._options: dict[str, Any] = {
            "alias": alias,
            "threads": threads,
            "queues": queues,
            "until_empty": until_empty,
            "grace": grace,
        }
        self._tell = tell
        self._processes = processes if hasattr(os, "fork") else 1
        self._grace = grace
        self._ready = ready
        self._said_ready = False
        self._children: list[_Child] = []
        self._signals = 0
        self._stopped_at: float | None = None
        self._stop_worker: Callable[[], None] | None = None

    def run(self) -> int:
        """Run until stopped, or until nothing is left; return the exit status."""
        # An error in the site's URLs or middleware shows here, once.
        dispatch = InProcessDispatcher()
        _ = get_resolver().url_patterns
        handlers = self._catch_signals()
        try:
            if self._processes == 1:
                return self._work_here(dispatch, recycle=self._restarts)
            return self._supervise(dispatch)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """End gracefully; the second time, at once."""
        self._signals += 1
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        if self._stop_worker is not None:
            if self._signals > 1:
                os._exit(1)
            self._stop_worker()
        for child in self._children:
            if child.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _catch_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, lambda *_: self.stop()) for number in _SIGNALS}

    # One process.

    def _work_here(self, dispatch: InProcessDispatcher, *, recycle: bool) -> int:
        worker = Worker(**self._options, dispatch=dispatch, ready=self._ready, recycle=recycle, tell=self._tell)
        self._stop_worker = worker.stop
        if self._signals:
            worker.stop()
        failed = _run_in_thread(worker, self._overdue)
        if worker.recycled and self._stopped_at is None:
            _start_anew()
        return 1 if failed or worker.cut_off else 0

    def _overdue(self) -> bool:
        return self._stopped_at is not None and time.monotonic() - self._stopped_at > self._grace + HAND_BACK

    # Many processes.

    def _supervise(self, dispatch: InProcessDispatcher) -> int:
        life_reader, life_writer = os.pipe()
        self._children = [_Child() for _ in range(self._processes)]
        status = 0
        try:
            while self._children:
                now = time.monotonic()
                for child in self._children:
                    if not child.pid and now >= child.start_at and self._stopped_at is None:
                        self._start(child, dispatch, life_reader, life_writer)
                self._listen()
                for child in list(self._children):
                    if child.pid and (result := _reap(child.pid)) is not None:
                        status = max(status, self._note_end(child, result))
                    elif not child.pid and self._stopped_at is not None:
                        self._children.remove(child)
                if self._overdue():
                    logger.error("some processes did not end in time and are killed; their tasks will run again")
                    self.stop()
                    self._stopped_at = time.monotonic()
                    status = 1
        finally:
            os.close(life_writer)
            os.close(life_reader)
        return status if self._signals < 2 else 1

    def _start(self, child: _Child, dispatch: InProcessDispatcher, life_reader: int, life_writer: int) -> None:
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        child.ready = False
        child.started = time.monotonic()
        # Until the child has handlers of its own, it would act on a signal as if it were the supervisor.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._fork(child, dispatch, life_reader, life_writer)
        except OSError as error:
            logger.error("no worker process could be started (%s); trying again", error)
            child.put_off(child.started)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if self._stopped_at is not None and child.pid:
            # The signal came before there was a child to pass it on to.
            os.kill(child.pid, signal.SIGTERM)

    def _fork(self, child: _Child, dispatch: InProcessDispatcher, life_reader: int, life_writer: int) -> None:
        reader, writer = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if pid == 0:
            os.close(life_writer)
            # One of them speaks for all.
            self._be_child(dispatch, life_reader, writer, self._tell if child is self._children[0] else None)
        os.close(writer)
        child.pid, child.reader = pid, reader

    def _be_child(
        self, dispatch: InProcessDispatcher, life_reader: int, writer: int, tell: Callable[[str], None] | None
    ) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            worker = Worker(**self._options, dispatch=dispatch, ready=lambda: _say(writer), recycle=True, tell=tell)
            signal.signal(signal.SIGTERM, lambda *_: worker.stop())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            threading.Thread(target=_outlive_nobody, args=(life_reader, worker), daemon=True).start()
            failed = _run_in_thread(worker, lambda: False)
            status = RECYCLED if worker.recycled else int(failed or worker.cut_off)
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            # Nothing that the supervisor registered to be done at exit is this process's to do.
            os._exit(status)

    def _listen(self) -> None:
        """Wait for children to become ready or to end."""
        readers = {child.reader: child for child in self._children if child.reader >= 0}
        now = time.monotonic()
        waits = [LOOK, *(child.start_at - now for child in self._children if not child.pid)]
        if self._stopped_at is not None:
            waits.append(self._stopped_at + self._grace + HAND_BACK - now)
        found, _, _ = select.select(list(readers), [], [], max(0.0, min(waits)))
        for reader in found:
            child = readers[reader]
            if os.read(reader, 1):
                child.ready = True
            else:
                os.close(reader)
                child.reader = -1
        if not self._said_ready and self._children and all(child.ready for child in self._children):
            self._said_ready = True
            if self._ready is not None:
                self._ready()

    def _note_end(self, child: _Child, result: int) -> int:
        """See to a child that ended; return the exit status that follows."""
        if child.reader >= 0:
            os.close(child.reader)
        pid, child.pid, child.reader = child.pid, 0, -1
        if result == 0 or self._stopped_at is not None:
            self._children.remove(child)
            return 0 if result in {0, RECYCLED} else 1
        if result == RECYCLED:
            # It has said why.
            return 0
        if not self._said_ready and result > 0:
            logger.error("worker process %d could not start", pid)
            self._children.remove(child)
            self.stop()
            return 1
        logger.error("worker process %d ended with %s and is replaced", pid, _describe(result))
        now = time.monotonic()
        if now - child.started > STEADY:
            child.pause = FIRST_PAUSE
        child.put_off(now)
        return 0


def _run_in_thread(worker: Worker, overdue: Callable[[], bool]) -> bool:
    """Run a worker in a thread of its own, so that the main thread can take signals; tell whether it failed."""
    failed = []

    def work() -> None:
        try:
            worker.run()
        except BaseException:
            failed.append(True)
            logger.exception("the worker failed")

    thread = threading.Thread(target=work, name="soc_tasks-engine", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        if overdue():
            return True
    return bool(failed)


def _start_anew() -> NoReturn:
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


def _say(writer: int) -> None:
    with suppress(OSError):
        os.write(writer, b"r")


def _reap(pid: int) -> int | None:
    """Return the exit code of a child that ended (negative: the signal), or None."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1
    return os.waitstatus_to_exitcode(status) if ended else None


def _describe(result: int) -> str:
    return f"signal {signal.Signals(-result).name}" if result < 0 else f"status {result}"
