"""`tasks sandbox`: the site on this machine with a Cloud Tasks of its own, in one command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from soc_tasks.management.verbs.relay import seconds

help = "Run the site with a Cloud Tasks of its own beside it, for development, until stopped by SIGTERM or Ctrl-C."

#: Where queues and tasks are kept, in the current directory.
DATABASE = "cloud-tasks.sqlite3"
_LARGEST = 65535


def add_arguments(parser: CommandParser) -> None:
    """Add the options of the sandbox."""
    parser.add_argument("port", nargs="?", type=_port, default=8000, help="port of the site (default: %(default)s)")
    parser.add_argument(
        "--server-port",
        type=_port,
        default=8123,
        metavar="PORT",
        help="port of the Cloud Tasks API; its keys are on the next one; 0: any two (default: %(default)s)",
    )
    parser.add_argument(
        "--database",
        default=DATABASE,
        metavar="PATH",
        help="SQLite file that keeps queues and tasks, made if it is not there (default: %(default)s)",
    )
    parser.add_argument("--fresh", action="store_true", help="begin with no tasks: delete that file first")
    parser.add_argument(
        "--relay-every",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="seconds between rounds of the relay (default: %(default)g)",
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        type=_service,
        metavar="NAME=URL",
        help="where tasks for this other service go; may be repeated",
    )
    parser.add_argument("--noreload", action="store_true", help="leave the site as it is when its code changes")


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Run until stopped."""
    from soc_tasks.conf import get_settings
    from soc_tasks.errors import SocTasksError
    from soc_tasks.sandbox.running import Options, run

    def tell(line: str) -> None:
        command.stdout.write(line)
        command.stdout.flush()

    try:
        if (backend := get_settings().backend) != "cloud_tasks":
            hint = "`manage.py runserver` alone runs tasks as well" if backend == "embedded" else "set that to use it"
            raise CommandError(
                f'The sandbox is for SOC_TASKS["BACKEND"] = "cloud_tasks", and this site has {backend!r}: {hint}.'
            )
        run(
            Options(
                port=options["port"],
                server_port=options["server_port"],
                database=Path(options["database"]).absolute(),
                fresh=options["fresh"],
                every=options["relay_every"],
                reload=not options["noreload"],
                services=dict(options["service"]),
            ),
            tell,
        )
    except SocTasksError as error:
        raise CommandError(str(error)) from error


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _LARGEST:
        raise ValueError
    return value


def _service(text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("give it as NAME=URL")
    return name, url


_port.__name__ = "port"
