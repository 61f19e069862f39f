"""A server from its start to the signal that ends it."""

from __future__ import annotations

import ipaddress
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from soc_tasks.engine.server.arguments import VARIABLE
from soc_tasks.engine.server.server import Options, Server, show_host

logger = logging.getLogger("soc_tasks.engine")

#: Seconds between looks whether the worker still runs.
LOOK: Final = 1.0


def run(options: Options, tell: Callable[[str], None]) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit status.

    Args:
        options: what the server is told.
        tell: called with one line when it is ready.

    Raises:
        ConfigurationError: it cannot begin.
    """
    if not is_loopback(options.host):
        logger.warning(
            "%s is reached from other machines: whoever reaches it can have requests of any kind sent from here",
            options.host,
        )
    server = Server(options)
    with _stopping() as stop:
        started = server.start(stop)
        try:
            if not started:
                return 0
            host = show_host(options.host)
            tell(
                f"soc_tasks server ready: {VARIABLE}={host}:{server.port} keys=http://{host}:{server.keys_port}/certs "
                f"database={options.alias} threads={options.threads}"
            )
            while not (stop.wait(LOOK) or server.ended.is_set()):
                continue
        finally:
            server.stop()
    return 0 if stop.is_set() else 1


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _stopping() -> Iterator[threading.Event]:
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
