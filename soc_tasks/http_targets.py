"""`http_target` of a queue in CLOUD_TASKS_QUEUES: what its HTTP tasks are sent as, whatever they say themselves.

The parts are those of HttpTarget in google.cloud.tasks_v2 (google-cloud-tasks 2.26), their rules its reference's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

METHODS: Final = ("POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")
SCHEMES: Final = ("HTTP", "HTTPS")
MODES: Final = ("ALWAYS", "IF_NOT_EXISTS")
#: Bytes of all headers together.
MOST_HEADER_BYTES: Final = 80_000

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])")
_URI_TEXT = re.compile(r"[!-~]*")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~_-]+")
#: What the service computes, or what proves or describes a task of ours.
_RESERVED: Final = ("host", "content-length", "authorization", "user-agent")
_RESERVED_PREFIXES: Final = ("x-cloudtasks-", "x-appengine-", "x-google-", "x-soctasks-")


def read_target(given: Any) -> dict[str, Any]:
    """Return an `http_target` with its numbers and names as the service has them.

    Raises:
        ValueError: it cannot be; the message names the part.
    """
    target = _read_dict("http_target", given, _PARTS)
    if "oauth_token" in target and "oidc_token" in target:
        raise ValueError("http_target holds oauth_token and oidc_token; a request carries one token: leave one out.")
    return target


def _read_dict(name: str, given: Any, readers: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} must be a dict with {', '.join(readers)}, not {given!r}.")
    if unknown := sorted(str(key) for key in given if key not in readers):
        raise ValueError(f"{name} has unknown parts {', '.join(unknown)}; known are {', '.join(readers)}.")
    return {key: read(f"{name}[{key!r}]", given[key]) for key, read in readers.items() if given.get(key) is not None}


def _read_uri(name: str, given: Any) -> dict[str, Any]:
    return _read_dict(name, given, _URI)


def _choice(*choices: str) -> Callable[[str, Any], str]:
    def read(name: str, given: Any) -> str:
        if not isinstance(given, str) or given.upper() not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {given!r}.")
        return given.upper()

    return read


def _read_host(name: str, given: Any) -> str:
    if not isinstance(given, str) or not _HOST.fullmatch(given):
        raise ValueError(f"{name} must be the name of a host, without scheme, port and path, not {given!r}.")
    return given


def _read_port(name: str, given: Any) -> int:
    try:
        port = int(given)
        if isinstance(given, bool) or float(given) != port or not 0 <= port <= 65535:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a port, or 0 for none, not {given!r}.") from None
    return port


def _read_path(name: str, given: Any) -> str:
    good = isinstance(given, str) and _URI_TEXT.fullmatch(given) and (not given or given.startswith("/"))
    if not good or "?" in given or "#" in given:
        raise ValueError(f"{name} must begin with / and hold no spaces, ? and #, or be empty, not {given!r}.")
    return str(given)


def _read_query(name: str, given: Any) -> str:
    if not isinstance(given, str) or not _URI_TEXT.fullmatch(given) or given.startswith("?") or "#" in given:
        raise ValueError(f"{name} must be what stands behind the ? of a URL, without spaces and #, not {given!r}.")
    return given


def _read_headers(name: str, given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} must be a dict of names and values, not {given!r}.")
    seen: set[str] = set()
    for key, value in given.items():
        if not isinstance(key, str) or not _HEADER_NAME.fullmatch(key):
            raise ValueError(f"{name}: {key!r} is no name for a header.")
        low = key.lower()
        if low in _RESERVED or low.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"{name}: a queue cannot set the header {key!r}.")
        if low in seen:
            raise ValueError(f"{name} has the header {key!r} twice.")
        seen.add(low)
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ValueError(f"{name}: the value of {key!r} must be printable ASCII, without line breaks.")
    if sum(len(key) + len(value) for key, value in given.items()) >= MOST_HEADER_BYTES:
        raise ValueError(f"{name} must have less than {MOST_HEADER_BYTES:,} bytes.")
    return dict(given)


def _token(*parts: str) -> Callable[[str, Any], dict[str, str]]:
    def read(name: str, given: Any) -> dict[str, str]:
        token = _read_dict(name, given, dict.fromkeys(parts, _read_text))
        # A queue's token must say both (reference of HttpTarget).
        if missing := [part for part in parts if part not in token]:
            raise ValueError(f"{name} must say {' and '.join(missing)}.")
        return token

    return read


def _read_text(name: str, given: Any) -> str:
    if not isinstance(given, str) or not given or not given.isascii() or not given.isprintable():
        raise ValueError(f"{name} must be a text of printable ASCII, not {given!r}.")
    return given


_URI: Final[dict[str, Callable[[str, Any], Any]]] = {
    "scheme": _choice(*SCHEMES),
    "host": _read_host,
    "port": _read_port,
    "path_override": _read_path,
    "query_override": _read_query,
    "uri_override_enforce_mode": _choice(*MODES),
}
_PARTS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "uri_override": _read_uri,
    "http_method": _choice(*METHODS),
    "header_overrides": _read_headers,
    "oidc_token": _token("service_account_email", "audience"),
    "oauth_token": _token("service_account_email", "scope"),
}
