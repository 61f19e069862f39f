"""`manage.py tasks <verb>`: one command for all that is done by hand; each verb is a module of management/verbs.

A verb has `help`, `add_arguments(parser)` and `handle(command, options)`; what it imports beyond Django it imports in
`handle`, because all verbs are imported to list their arguments.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from importlib import import_module
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser, SystemCheckError
from django.db import OperationalError, ProgrammingError

#: Verb and the module that does it.
VERBS: Final = {
    "run": "soc_tasks.management.verbs.run",
    "serve": "soc_tasks.management.verbs.serve",
    "sandbox": "soc_tasks.management.verbs.sandbox",
    "queues": "soc_tasks.management.verbs.queues",
    "list": "soc_tasks.management.verbs.list",
    "show": "soc_tasks.management.verbs.show",
    "run-now": "soc_tasks.management.verbs.run_now",
    "delete": "soc_tasks.management.verbs.delete",
    "pause": "soc_tasks.management.verbs.pause",
    "resume": "soc_tasks.management.verbs.resume",
    "purge": "soc_tasks.management.verbs.purge",
    "failed": "soc_tasks.management.verbs.failed",
    "iterations": "soc_tasks.management.verbs.iterations",
    "watch": "soc_tasks.management.verbs.watch",
    "relay": "soc_tasks.management.verbs.relay",
    "doctor": "soc_tasks.management.verbs.doctor",
}


#: Exit status of a command whose reader is gone, as a shell tells it: 128 and SIGPIPE.
BROKEN: Final = 141


class Command(BaseCommand):
    """Finds the verb and runs it."""

    help = "Run, watch and look after tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a parser for each verb."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
        for verb, path in VERBS.items():
            module = import_module(path)
            sub: CommandParser = verbs.add_parser(verb, help=module.help, description=module.help)
            module.add_arguments(sub)
            _accept_django_options(sub)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the checks and the verb; a worker whose settings are wrong says so by its exit status as well."""
        if options["verb"] == "doctor":
            # It runs them itself, and goes on where they find something.
            options["skip_checks"] = True
        try:
            return super().execute(*args, **options)
        except SystemCheckError as error:
            error.returncode = 2 if options["verb"] in {"run", "serve"} else error.returncode
            raise

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the verb; what its reader does not want any more, as of `tasks list | head`, is not printed."""
        try:
            self._run_verb(options)
            self.stdout.flush()
        except BrokenPipeError:
            if not _is_broken(self.stdout):
                raise
            # Python would tell of it once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(BROKEN)

    def _run_verb(self, options: dict[str, Any]) -> None:
        from soc_tasks.errors import SocTasksError

        try:
            import_module(VERBS[options["verb"]]).handle(self, options)
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(
                f"The database could not do that: {error}. If a table is missing, run `manage.py migrate`; if it is "
                "locked, try again."
            ) from error
        except SocTasksError as error:
            raise CommandError(str(error)) from error


def _is_broken(stream: Any) -> bool:
    """Tell whether whoever read this process's output is gone; not so where the output is somebody's buffer."""
    if getattr(stream, "_out", stream) is not sys.stdout:
        return False
    poll = select.poll()
    # What was written is gone with the error: that nobody reads is asked of the pipe itself.
    poll.register(sys.stdout, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _accept_django_options(parser: CommandParser) -> None:
    """Take Django's own options behind the verb as well (`tasks run --verbosity 2`), but for those the verb has."""
    taken = set(parser._option_string_actions)
    hidden: dict[str, Any] = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    if not taken & {"-v", "--verbosity"}:
        parser.add_argument("-v", "--verbosity", type=int, choices=(0, 1, 2, 3), **hidden)
    for option in {"--settings", "--pythonpath"} - taken:
        parser.add_argument(option, **hidden)
    for flag in {"--traceback", "--no-color", "--force-color", "--skip-checks"} - taken:
        parser.add_argument(flag, action="store_true", **hidden)
