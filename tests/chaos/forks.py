"""Children of a warm process: forked in a moment, so that thousands can live and die."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import NamedTuple

from django.db import connections

#: Seconds after which a child that does not end is ended.
PATIENCE = 60


class End(NamedTuple):
    """How a child ended: its exit status, or less than 0 for a signal; and what it has told."""

    status: int
    told: str


class Child:
    """A forked process.

    Args:
        work: what it does; called with a function by which it tells its parent something.
    """

    def __init__(self, work: Callable[[Callable[[str], None]], None]) -> None:
        # Neither a connection nor a thread survives a fork.
        connections.close_all()
        assert threading.active_count() == 1, threading.enumerate()
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.reader)
            self._live(work, writer)
        os.close(writer)

    @staticmethod
    def _live(work, writer):
        status = 1
        try:
            gc.freeze()
            signal.alarm(PATIENCE)
            work(lambda text: os.write(writer, f"{text}\n".encode()))
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def is_stopped(self) -> bool:
        """Wait until it has stopped or ended; tell which."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._status = os.waitstatus_to_exitcode(status)
        return False

    def kill(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self) -> End:
        """Wait until it has ended."""
        with open(self.reader, "rb") as told:
            text = told.read().decode()
        if not hasattr(self, "_status"):
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return End(self._status, text)


def warm_up(work: Callable[[], None]) -> None:
    """Do something in this process, so that its children find everything loaded; wait until its threads are gone."""
    work()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(PATIENCE)
    connections.close_all()
