"""`tasks run`: worker processes under one that starts them, starts them again when they die, and passes signals on.

The supervisor loads the site once and forks; a child that dies is replaced in milliseconds. It holds no database
connection and no thread. A child ends gracefully on SIGTERM, or when the supervisor is gone (its end of a pipe closes).

A thread cannot be stopped: one whose attempt outlived its deadline keeps its memory, its connections and, on SQLite,
the write lock of its transaction until its process ends. A worker that has such a thread ends, and is replaced at once.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Final

from django.db import connections
from django.urls import get_resolver

from soc_tasks.conf import get_settings
from soc_tasks.engine.attempts import Dispatch
from soc_tasks.engine.children import (
    FIRST_PAUSE,
    LOOK,
    RECYCLED,
    SIGNALS,
    STEADY,
    Child,
    be_child,
    reap,
    run_in_thread,
    start_anew,
)
from soc_tasks.engine.dispatchers import make_dispatcher
from soc_tasks.engine.ending import JITTER, MIB, NO_LIMITS, Limits, measure_memory
from soc_tasks.engine.health import HealthFile
from soc_tasks.engine.keeping import requests_spared
from soc_tasks.engine.pace import MOST_CLAIMED
from soc_tasks.engine.processes import describe
from soc_tasks.engine.pulse import Beat
from soc_tasks.engine.worker import Worker
from soc_tasks.errors import ConfigurationError

logger = logging.getLogger("soc_tasks.engine")

#: Seconds beyond the grace period in which a process hands its leases back.
HAND_BACK: Final = 5.0
#: Seconds between looks at a child that has closed its pipe.
GOING: Final = 0.01
#: The variable that counts how often a single process has started itself anew.
RESTARTS: Final = "SOC_TASKS_RESTARTS"


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
        restarts: whether this process may start its own command line anew, to get rid of a thread that hangs, or
            because it has come to a limit.
        limits: after what a process is replaced.
        window: how many tasks each process may hold at one time.
        health: the path of the file that tells how it is; None: none.
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
        limits: Limits = NO_LIMITS,
        window: int = MOST_CLAIMED,
        health: str | None = None,
    ) -> None:
        self._restarts = restarts
        self._limits = limits
        self._health = None if health is None else HealthFile(health, get_settings().lease_seconds)
        self._health_at = 0.0
        self._replaced = int(os.environ.get(RESTARTS, "0"))
        self._options: dict[str, Any] = {
            "alias": alias,
            "threads": threads,
            "queues": queues,
            "until_empty": until_empty,
            "grace": grace,
            "limits": limits,
            "window": window,
        }
        self._tell = tell
        self._processes = processes if hasattr(os, "fork") else 1
        self._grace = grace
        self._ready = ready
        self._said_ready = False
        self._children: list[Child] = []
        self._signals = 0
        self._stopped_at: float | None = None
        self._stop_worker: Callable[[], None] | None = None

    def run(self) -> int:
        """Run until stopped, or until nothing is left; return the exit status.

        Raises:
            ConfigurationError: the health file cannot be written, or a limit cannot be kept.
        """
        if self._health is not None:
            try:
                self._health.write([], processes=self._processes, restarts=self._replaced)
            except OSError as error:
                raise ConfigurationError(f"The health file cannot be written: {error}.") from error
        try:
            # An error in the settings, or in the site's URLs or middleware, shows here, once.
            dispatch = make_dispatcher()
            _ = get_resolver().url_patterns
            self._check_limits()
            handlers = self._catch_signals()
            try:
                if self._processes == 1:
                    return self._work_here(dispatch)
                return self._supervise(dispatch)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        finally:
            if self._health is not None:
                self._health.remove()

    def _check_limits(self) -> None:
        if self._limits != NO_LIMITS and self._processes == 1 and not self._restarts:
            raise ConfigurationError(
                "One process cannot be replaced here: give more with --processes, or run this as a command of its own."
            )
        if self._limits.memory is None:
            return
        used = measure_memory()
        if used is None:
            raise ConfigurationError("This system does not tell how much memory a process holds.")
        if used >= self._limits.memory * (1 - JITTER):
            raise ConfigurationError(
                f"The site alone takes {used // MIB} MiB when it is loaded; with a limit of "
                f"{self._limits.memory // MIB} MiB, processes would be replaced without end."
            )

    def stop(self) -> None:
        """End gracefully; the second time, at once."""
        self._signals += 1
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        if self._stop_worker is not None:
            if self._signals > 1:
                if self._health is not None:
                    self._health.remove()
                os._exit(1)
            self._stop_worker()
        for child in self._children:
            if child.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGTERM if self._signals == 1 else signal.SIGKILL)

    def _catch_signals(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, lambda *_: self.stop()) for number in SIGNALS}

    # One process.

    def _work_here(self, dispatch: Dispatch) -> int:
        if self._restarts:
            # This thread only waits from now on. A caller's connections are the caller's.
            connections.close_all()
        worker = Worker(**self._options, dispatch=dispatch, ready=self._ready, recycle=self._restarts, tell=self._tell)
        self._stop_worker = worker.stop
        if self._signals:
            worker.stop()

        def look() -> None:
            self._said_ready = worker.pulse.ready
            self._tell_health([(os.getpid(), worker.pulse.feel())])

        with requests_spared() if self._restarts else nullcontext():
            failed = run_in_thread(worker, self._overdue, look)
        if worker.ending.recycled and self._stopped_at is None:
            os.environ[RESTARTS] = str(self._replaced + 1)
            start_anew()
        return 1 if failed or worker.cut_off else 0

    def _overdue(self) -> bool:
        return self._stopped_at is not None and time.monotonic() - self._stopped_at > self._grace + HAND_BACK

    # Many processes.

    def _supervise(self, dispatch: Dispatch) -> int:
        life_reader, life_writer = os.pipe()
        self._children = [Child() for _ in range(self._processes)]
        status = 0
        try:
            while self._children:
                now = time.monotonic()
                for child in self._children:
                    if not child.pid and now >= child.start_at and self._stopped_at is None:
                        self._start(child, dispatch, life_reader, life_writer)
                self._listen()
                now = time.monotonic()
                self._tell_health([(child.pid, child.feel(now)) for child in self._children if child.pid])
                for child in list(self._children):
                    if child.pid and (result := reap(child.pid)) is not None:
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

    def _start(self, child: Child, dispatch: Dispatch, life_reader: int, life_writer: int) -> None:
        connections.close_all()
        sys.stdout.flush()
        sys.stderr.flush()
        child.begin(time.monotonic())
        # Until the child has handlers of its own, it would act on a signal as if it were the supervisor.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
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

    def _fork(self, child: Child, dispatch: Dispatch, life_reader: int, life_writer: int) -> None:
        reader, writer = os.pipe()
        # What is loaded by now is kept out of the child's collections: the first full one would write to every page of
        # it, and so make its own copy of each (Python's documentation of gc.freeze).
        gc.freeze()
        try:
            pid = os.fork()
        except OSError:
            gc.unfreeze()
            os.close(reader)
            os.close(writer)
            raise
        if pid == 0:
            os.close(life_writer)
            # One of them speaks for all.
            tell = self._tell if child is self._children[0] else None
            be_child({**self._options, "dispatch": dispatch}, life_reader, writer, tell)
        gc.unfreeze()
        os.close(writer)
        child.pid, child.reader = pid, reader

    def _listen(self) -> None:
        """Wait for children to become ready or to end."""
        readers = {child.reader: child for child in self._children if child.reader >= 0}
        now = time.monotonic()
        waits = [LOOK, *(child.start_at - now for child in self._children if not child.pid)]
        if self._stopped_at is not None:
            waits.append(self._stopped_at + self._grace + HAND_BACK - now)
        if any(child.pid and child.reader < 0 for child in self._children):
            # It has closed its pipe, and is about to be gone.
            waits.append(GOING)
        found, _, _ = select.select(list(readers), [], [], max(0.0, min(waits)))
        for reader in found:
            readers[reader].listen(time.monotonic())
        if not self._said_ready and self._children and all(child.ready for child in self._children):
            self._said_ready = True
            if self._ready is not None:
                self._ready()

    def _note_end(self, child: Child, result: int) -> int:
        """See to a child that ended; return the exit status that follows."""
        child.hang_up()
        pid, child.pid = child.pid, 0
        if result == 0 or self._stopped_at is not None:
            self._children.remove(child)
            return 0 if result in {0, RECYCLED} else 1
        if result == RECYCLED:
            # It has said why.
            self._replaced += 1
            return 0
        if not self._said_ready and result > 0:
            logger.error("worker process %d could not start", pid)
            self._children.remove(child)
            self.stop()
            return 1
        logger.error("worker process %d ended with %s and is replaced", pid, describe(result))
        self._replaced += 1
        now = time.monotonic()
        if now - child.started > STEADY:
            child.pause = FIRST_PAUSE
        child.put_off(now)
        return 0

    # Health.

    def _tell_health(self, beats: Sequence[tuple[int, Beat | None]]) -> None:
        """Write the health file, every second."""
        if self._health is None or (now := time.monotonic()) < self._health_at:
            return
        self._health_at = now + LOOK
        try:
            self._health.write(
                beats,
                begun=self._said_ready,
                draining=self._stopped_at is not None,
                processes=self._processes,
                restarts=self._replaced,
            )
        except OSError as error:
            # Who checks it sees that it is old.
            logger.warning("the health file cannot be written: %s", error)
