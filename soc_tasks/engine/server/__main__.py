"""`python -m soc_tasks.engine.server`: the server without a Django project, on a SQLite file of its own."""

from __future__ import annotations

import argparse
import logging
import sys

from soc_tasks.engine.server.arguments import add_arguments, read_options


def main(arguments: list[str] | None = None) -> int:
    """Serve until stopped; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m soc_tasks.engine.server", description="Serve the Cloud Tasks API v2 on a SQLite file."
    )
    add_arguments(parser)
    parser.add_argument(
        "--database",
        default="cloud-tasks.sqlite3",
        metavar="PATH",
        help="the file; made if it is not there (default: %(default)s)",
    )
    given = vars(parser.parse_args(arguments))
    from soc_tasks.engine.server.databases import find_key, set_up_alone
    from soc_tasks.errors import ConfigurationError

    alias = set_up_alone(given["database"])
    from soc_tasks.engine.loglines import show_log_lines
    from soc_tasks.engine.server.running import run

    show_log_lines(logging.INFO)
    try:
        return run(read_options(given, alias, find_key(alias)), _tell)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
