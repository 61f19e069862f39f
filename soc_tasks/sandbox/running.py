"""`tasks sandbox`: a server, a relay and the site, started and ended together."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from soc_tasks.backends.cloud_tasks.queues import QueueService, connect
from soc_tasks.conf import find_url_problem
from soc_tasks.engine.server.dispatch import listens
from soc_tasks.engine.stopping import stopping
from soc_tasks.errors import ConfigurationError
from soc_tasks.sandbox.children import LOOK, Child, start_server
from soc_tasks.sandbox.site import make_environment, set_variable

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a sandbox is told.

    Args:
        port: port of the site; 0: any that is free.
        server_port: port of the API; the next one is that of the keys. 0: any two.
        database: file that keeps queues and tasks.
        fresh: whether to begin with an empty one.
        every: seconds between rounds of the relay.
        reload: whether the site starts anew when its code changes.
        services: base URLs of other services by name.
    """

    port: int
    server_port: int
    database: Path
    fresh: bool
    every: float
    reload: bool
    services: Mapping[str, str] = field(default_factory=dict)


def run(options: Options, tell: Callable[[str], None]) -> None:
    """Run until SIGTERM or Ctrl-C.

    Args:
        options: what it is told.
        tell: called with each line.

    Raises:
        ConfigurationError: one of the processes ended by itself, or something cannot begin.
    """
    for name, url in options.services.items():
        if problem := find_url_problem(url):
            raise ConfigurationError(f"The URL of the service {name!r} cannot be {url!r}: {problem}.")
    port = _check_port(options.port)
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            tell(line)

    if options.fresh:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{options.database}{suffix}").unlink(missing_ok=True)
    with stopping() as stop:
        try:
            _work(options, port, stop, say)
        except ConfigurationError:
            # What ends on the way, when all is to end, is not to blame.
            if not stop.is_set():
                raise


def _work(options: Options, port: int, stop: threading.Event, say: Callable[[str], None]) -> None:
    address = f"{HOST}:{port}"
    url = f"http://{address}"

    def tell_of(name: str, line: str) -> None:
        say(f"{name:6} | {line}")

    # The server ends first: the site is still to answer what is under way.
    with ExitStack() as others, ExitStack() as first:
        server = start_server(
            first,
            # What waits from the last time is not to meet a site that is still starting.
            ("--database", str(options.database), "--after", address),
            lambda: stop.wait(LOOK),
            port=options.server_port,
            tell=tell_of,
        )
        with set_variable(server.host), connect() as client:
            service = QueueService(client)
            service.apply(service.plan())
        environment = make_environment(server.host, url=url, issuer=server.issuer, services=options.services)
        children = [server.child]
        for name, arguments in (
            ("relay", ("tasks", "relay", "--every", f"{options.every:g}")),
            ("site", ("runserver", address, *(() if options.reload else ("--noreload",)))),
        ):
            child = Child(name, "soc_tasks.sandbox", *arguments, environment=environment, tell=tell_of)
            children.append(others.enter_context(child))
        ready = False
        while not stop.wait(LOOK):
            for child in children:
                if child.has_ended():
                    raise ConfigurationError(f"{child.describe_end()}\nEverything else was stopped.")
            if not ready and listens(HOST, port):
                ready = True
                say(
                    f"soc_tasks sandbox ready: site={url} TASKS_EMULATOR_HOST={server.host} keys={server.certs_url} "
                    f"database={options.database}"
                )


def _check_port(port: int) -> int:
    """Return the port of the site.

    Raises:
        ConfigurationError: somebody listens there.
    """
    with socket.socket() as probe:
        # As the site does: a port that was left a moment ago may be taken again.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(f"The site cannot listen on {HOST}:{port}: {error}. Name another port.") from error
        return int(probe.getsockname()[1])
