"""The options of `tasks serve` and of `python -m soc_tasks.engine.server`."""

from __future__ import annotations

import argparse
import re
from typing import Any, Final

from soc_tasks.conf import find_url_problem
from soc_tasks.errors import ConfigurationError

#: The environment variable by which clients find an emulator.
VARIABLE: Final = "TASKS_EMULATOR_HOST"
PORT: Final = 8123


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server, but for that of the database."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=PORT, help="port of the API; 0: any (default: %(default)s)")
    parser.add_argument(
        "--keys-port", type=_port, metavar="PORT", help="port of the keys of OIDC tokens (default: the next one)"
    )
    parser.add_argument("--threads", type=_positive, default=32, help="attempts at one time (default: %(default)s)")
    parser.add_argument("--project", default="demo", help="project of --queue (default: %(default)s)")
    parser.add_argument("--location", default="us-central1", help="location of --queue (default: %(default)s)")
    parser.add_argument(
        "--queue",
        action="append",
        default=[],
        metavar="NAME",
        help="make this queue unless it is there; may be repeated",
    )
    parser.add_argument("--app-engine-url", metavar="URL", help="where tasks with an App Engine target go")
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="where those for this App Engine service go; may be repeated",
    )
    parser.add_argument(
        "--key",
        metavar="PATH",
        help="key that signs OIDC tokens, PEM; made if it is not there (default: beside SQLite's file)",
    )
    parser.add_argument("--issuer", metavar="URL", help="issuer of OIDC tokens (default: the address of the keys)")
    parser.add_argument(
        "--tokens-over-http", action="store_true", help="let tokens go to http:// URLs of other hosts than this one"
    )
    parser.add_argument(
        "--queue-tombstone",
        type=float,
        default=259200.0,
        metavar="SECONDS",
        help="how long the name of a deleted queue stays taken (default: 3 days, as in Cloud Tasks)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long attempts may take to end when the server is stopped (default: %(default)s)",
    )
    parser.add_argument(
        "--after",
        metavar="HOST:PORT",
        help="attempt nothing before somebody listens there: the site, which starts as well",
    )
    parser.add_argument(
        "--until-eof", action="store_true", help="stop also when standard input ends, as it does with who started this"
    )


def read_options(given: dict[str, Any], alias: str, key: str | None) -> Any:
    """Return the `Options` of a server.

    Args:
        given: the options by name.
        alias: the database.
        key: file of the key, unless the options name one.

    Raises:
        ConfigurationError: one of them cannot be.
    """
    from soc_tasks.engine.server.errors import ApiError
    from soc_tasks.engine.server.names import parse_location, parse_queue
    from soc_tasks.engine.server.server import Options

    services = {}
    for each in given["service"]:
        name, _, url = each.partition("=")
        services[name] = url
    if given["app_engine_url"] is not None:
        services["default"] = given["app_engine_url"]
    for name, url in services.items():
        if problem := find_url_problem(url) if re.fullmatch(r"[a-z0-9-]+", name) else "give it as NAME=URL":
            raise ConfigurationError(f"The URL of the App Engine service {name!r} cannot be {url!r}: {problem}.")
    parent = f"projects/{given['project']}/locations/{given['location']}"
    try:
        location = parse_location(parent)
        queues = [parse_queue(name if "/" in name else f"{parent}/queues/{name}") for name in given["queue"]]
    except ApiError as error:
        raise ConfigurationError(f"--project, --location or --queue: {error}") from error
    port, keys_port = given["port"], given["keys_port"]
    return Options(
        alias=alias,
        host=given["host"],
        port=port,
        keys_port=keys_port if keys_port is not None else port + 1 if port else 0,
        threads=given["threads"],
        services=services,
        queues=queues,
        locations=frozenset({location}),
        key=given["key"] or key,
        issuer=given["issuer"],
        queue_tombstone=given["queue_tombstone"],
        http_tokens=given["tokens_over_http"],
        grace=given["grace"],
        until_eof=given["until_eof"],
        after=_read_address(given["after"]),
    )


def _read_address(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    try:
        return host, _port(port)
    except ValueError as error:
        raise ConfigurationError(f"--after takes a host and a port, as in 127.0.0.1:8000, not {text!r}.") from error


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65535:
        raise ValueError
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_port.__name__, _positive.__name__ = "port", "positive number"
