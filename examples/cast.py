"""Who plays in a demo: the processes that are started, and which of them are killed when.

`Embedded` is the site with its worker; `Cloud` is the same site on the backend for Google Cloud Tasks, with the server
of `tasks serve` as its Cloud Tasks, and a relay; `Datastore` has another site, which has no SQL database.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from examples.processes import Process

LEASE_SECONDS = 3  # how long the batch of a killed process waits for the next one
#: What comes after `python`, and the arguments after that.
Command = tuple[tuple[str, ...], tuple[str, ...]]
MANAGE = ("manage.py",)
SERVER = ("-m", "soc_tasks.engine.server")
SANDBOX = ("-m", "soc_tasks.sandbox")


@dataclass(frozen=True)
class Kill:
    """When somebody is killed.

    Args:
        victim: the name of the process.
        mails: due when this share of the mails is out, and not all; None: never.
        cities: due as well while cities are counted, from this share on; None: never.
    """

    victim: str
    mails: float | None = None
    cities: float | None = None


class Cast:
    """The processes of one demo.

    Args:
        stack: what is started is ended by it.
        folder: for databases and logs.
    """

    backend: ClassVar[str]
    kills: ClassVar[tuple[Kill, ...]]
    #: Whose log tells most when nothing goes on.
    lead: ClassVar[str]

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.port = find_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, Process] = {}
        os.environ.update(
            TASKS_BACKEND=self.backend,
            TASKS_LEASE_SECONDS=str(LEASE_SECONDS),
            DATABASE_PATH=str(folder / "demo.sqlite3"),
        )

    def start_all(self, wait_for: Callable[[int], None]) -> None:
        """Start everybody, and return when the site answers.

        Args:
            wait_for: waits until somebody listens on a port.
        """
        for name in self.find_commands():
            self.start(name)
        wait_for(self.port)

    def start(self, name: str) -> None:
        """Start one process."""
        program, arguments = self.find_commands()[name]
        self.processes[name] = self.stack.enter_context(
            Process(*arguments, program=program, log=self.folder / f"{name}.log")
        )

    def kill(self, name: str) -> None:
        """Kill one process with its children (SIGKILL), and start it again."""
        self.processes[name].kill()
        self.start(name)

    def find_commands(self) -> dict[str, Command]:
        """Return how each process is started, by name."""
        raise NotImplementedError


class Embedded(Cast):
    """Web server and worker, on one SQLite file; the worker is killed, with its children."""

    backend = "embedded"
    kills = (Kill("worker", mails=1 / 3, cities=1 / 3), Kill("worker", mails=1 / 2))
    lead = "worker"

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        super().__init__(stack, folder)
        # The tasks are the worker's alone here, so that killing it kills the work.
        os.environ["TASKS_RUNSERVER"] = "0"

    def find_commands(self) -> dict[str, Command]:
        return {
            "site": (MANAGE, ("runserver", "--noreload", f"127.0.0.1:{self.port}")),
            "worker": (MANAGE, ("tasks", "run")),
        }


class Cloud(Cast):
    """Web server, relay and `tasks serve`, as `tasks sandbox` runs them; each is killed once."""

    backend = "cloud_tasks"
    kills = (
        Kill("relay", mails=1 / 6, cities=1 / 6),
        Kill("server", mails=1 / 3, cities=1 / 3),
        Kill("site", mails=1 / 2),
    )
    lead = "server"

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        from soc_tasks.sandbox.site import make_environment

        super().__init__(stack, folder)
        self.server_port, self.keys_port = find_port(), find_port()
        os.environ.update(
            make_environment(
                f"127.0.0.1:{self.server_port}",
                url=self.url,
                issuer=f"http://127.0.0.1:{self.keys_port}",
                services={},
            ),
            # Short slices: many tasks, so that there is always one on its way.
            TASKS_SLICE_SECONDS="1",
        )

    def start_all(self, wait_for: Callable[[int], None]) -> None:
        from django.core.management import call_command

        self.start("server")
        wait_for(self.server_port)
        call_command("tasks", "queues", "--apply")
        self.start("relay")
        self.start("site")
        wait_for(self.port)

    def find_commands(self) -> dict[str, Command]:
        files = ("--database", str(self.folder / "cloud-tasks.sqlite3"))
        ports = ("--port", str(self.server_port), "--keys-port", str(self.keys_port))
        return {
            "server": (SERVER, (*files, *ports, "--until-eof")),
            "relay": (SANDBOX, ("tasks", "relay", "--every", "1")),
            "site": (SANDBOX, ("runserver", "--noreload", f"127.0.0.1:{self.port}")),
        }


class Datastore(Cloud):
    """The same for a site that has no database but Datastore; its handlers are killed twice."""

    kills = (
        Kill("relay", cities=1 / 8),
        Kill("site", cities=1 / 4),
        Kill("server", cities=1 / 2),
        Kill("site", cities=3 / 4),
    )


def find_port() -> int:
    """Return a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
