"""`tasks serve`: the embedded engine behind the Cloud Tasks API v2, for clients and applications in any language."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from soc_tasks.engine.server import arguments

help = "Serve the Cloud Tasks API v2 from the embedded engine, until stopped by SIGTERM or Ctrl-C."

#: Exit status where starting again does not help.
WRONG = 2


def add_arguments(parser: CommandParser) -> None:
    """Add the options of the server."""
    arguments.add_arguments(parser)
    parser.add_argument(
        "--database", metavar="PATH", help="a SQLite file of its own, made if it is not there (default: SOC_TASKS's)"
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Serve until stopped."""
    from soc_tasks.engine.loglines import show_log_lines
    from soc_tasks.engine.server.databases import find_key
    from soc_tasks.engine.server.running import run
    from soc_tasks.errors import SocTasksError

    if options["verbosity"] >= 1:
        show_log_lines(logging.DEBUG if options["verbosity"] > 1 else logging.INFO)

    def tell(line: str) -> None:
        command.stdout.write(line)
        command.stdout.flush()

    try:
        alias = _open_database(options["database"])
        read = arguments.read_options(options, alias, find_key(alias))
        status = run(replace(read, upkeep=options["database"] is None), tell)
    except SocTasksError as error:
        raise CommandError(str(error), returncode=WRONG) from error
    if status:
        raise CommandError("The server ended by itself; its log says why.", returncode=status)


def _open_database(path: str | None) -> str:
    """Return the alias of the database.

    Raises:
        CommandError: tables are missing, or the database is not to be had.
    """
    from django.apps import apps

    from soc_tasks.conf import get_settings
    from soc_tasks.engine.server.databases import is_ready, open_file

    if not apps.is_installed("soc_tasks.engine"):
        raise CommandError('Put "soc_tasks.engine" into INSTALLED_APPS.', returncode=WRONG)
    if path is not None:
        return open_file(path)
    from soc_tasks.backends import get_backend

    # Whoever works on a site's database may be the one that does its upkeep: the backend says what that is.
    get_backend()
    alias = get_settings().database
    try:
        ready = is_ready(alias)
    except Error as error:
        raise CommandError(str(error)) from error
    if not ready:
        raise CommandError(
            f"The server's tables are missing on the database {alias!r}. Run: manage.py migrate --database {alias}; or "
            "give it a file of its own by --database PATH.",
            returncode=WRONG,
        )
    return alias
