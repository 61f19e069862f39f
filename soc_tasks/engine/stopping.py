"""What ends a process that serves: SIGTERM, Ctrl-C, or the end of whoever started it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Give an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def call_at_end_of_input(call: Callable[[], object], descriptor: int = 0) -> None:
    """Call a function in a thread when standard input ends: whoever held its other end is gone, however that died.

    Args:
        call: called once.
        descriptor: what is read instead.
    """

    def wait() -> None:
        with suppress(OSError):
            while os.read(descriptor, 4096):
                continue
        call()

    threading.Thread(target=wait, name="soc_tasks-input", daemon=True).start()
