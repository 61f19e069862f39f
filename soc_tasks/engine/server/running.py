"""A server from its start to the signal that ends it."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import Final

from soc_tasks.engine.server.arguments import VARIABLE
from soc_tasks.engine.server.server import Options, Server, show_host
from soc_tasks.engine.stopping import call_at_end_of_input, stopping

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
    with stopping() as stop:
        if options.until_eof:
            call_at_end_of_input(stop.set)
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
