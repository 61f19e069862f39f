"""`tasks run`: the worker of the embedded engine."""

from __future__ import annotations

import logging
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from soc_tasks.management.verbs.opening import check_queue, open_engine

help = "Run the tasks of the embedded engine, until stopped by SIGTERM or Ctrl-C."

logger = logging.getLogger("soc_tasks.engine")

#: More processes than these do not help on one SQLite database; who wants them asks for them.
MOST_PROCESSES = 4
#: Exit status where starting again does not help: options, settings, tables. That of argparse.
WRONG = 2


def add_arguments(parser: CommandParser) -> None:
    """Add the options of the worker."""
    from soc_tasks.engine.pace import MOST_CLAIMED

    parser.add_argument(
        "--processes", type=_positive, default=min(MOST_PROCESSES, os.cpu_count() or 1), help="default: %(default)s"
    )
    parser.add_argument("--threads", type=_positive, default=8, help="threads of each process (default: %(default)s)")
    parser.add_argument("--queue", action="append", metavar="NAME", help="work on this queue only; may be repeated")
    parser.add_argument(
        "--until-empty",
        action="store_true",
        help="end when nothing is due, running, or waiting for a retry; what is scheduled for later stays",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=25.0,
        metavar="SECONDS",
        help="how long running tasks may take to end when the worker is stopped (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=_positive,
        default=MOST_CLAIMED,
        metavar="N",
        help="tasks that a process holds at most; so many may run again after a kill (default: %(default)s)",
    )
    parser.add_argument(
        "--max-tasks", type=_positive, metavar="N", help="replace a process when it has run about so many tasks"
    )
    parser.add_argument(
        "--max-memory", type=_positive, metavar="MIB", help="replace a process when it holds about so much memory"
    )
    parser.add_argument(
        "--health-file", metavar="PATH", help="write there, every second, how the worker is; removed at the end"
    )
    parser.add_argument(
        "--log-format",
        choices=("keyvalue", "json"),
        default="keyvalue",
        help="form of log lines, unless LOGGING has a handler for them (default: %(default)s)",
    )


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Run until stopped, or until nothing is left."""
    from soc_tasks.engine.ending import MIB, Limits
    from soc_tasks.engine.loglines import format_line, show_log_lines
    from soc_tasks.engine.supervisor import Supervisor
    from soc_tasks.errors import ConfigurationError

    try:
        backend = open_engine()
        queues = options["queue"]
        for queue in queues or ():
            check_queue(backend, queue)
        risks = backend.store.find_risks()
    except CommandError as error:
        # A database that is not there may come: starting again does help.
        error.returncode = 1 if isinstance(error.__cause__, Error) else WRONG
        raise
    except Error as error:
        raise CommandError(str(error)) from error
    form = options["log_format"]
    if options["verbosity"] >= 1:
        shown = show_log_lines(logging.DEBUG if options["verbosity"] > 1 else logging.INFO, form)
        if not shown and form != "keyvalue":
            command.stderr.write(
                "--log-format has no effect: LOGGING has a handler for the logger soc_tasks. Give that the formatter "
                "soc_tasks.logs.JsonFormatter."
            )
    for risk in risks:
        logger.warning(risk)
    processes, threads = options["processes"], options["threads"]
    if backend.store.is_private:
        # A child would work on a copy of its own.
        processes = 1
    line = (
        f"soc_tasks worker ready: processes={processes} threads={threads} database={backend.store.alias} "
        f"queues={','.join(queues) if queues else 'all'}"
    )

    def tell(line: str) -> None:
        command.stdout.write(format_line(line, form))
        command.stdout.flush()

    memory = options["max_memory"]
    try:
        status = Supervisor(
            backend.store.alias,
            processes=processes,
            threads=threads,
            queues=queues,
            until_empty=options["until_empty"],
            grace=options["grace"],
            ready=lambda: tell(line),
            tell=tell if options["verbosity"] >= 1 else None,
            # Called from code, this process is somebody else's: it cannot be started anew, nor can a database in it.
            restarts=getattr(command, "_called_from_command_line", False)
            and hasattr(os, "execv")
            and not backend.store.is_private,
            limits=Limits(options["max_tasks"], None if memory is None else memory * MIB),
            window=options["window"],
            health=options["health_file"],
        ).run()
    except ConfigurationError as error:
        raise CommandError(str(error), returncode=WRONG) from error
    if status:
        raise CommandError("The worker was ended before its tasks were; they will run again.", returncode=status)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive number"
