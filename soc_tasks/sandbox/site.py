"""The settings of a site in a sandbox: it queues at the server beside it, and is called with that server's tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings

from soc_tasks.backends.cloud_tasks import service
from soc_tasks.views.oidc import forget_keys

#: The account of the tokens, where the settings name none.
ACCOUNT: Final = "tasks@sandbox.example.org"
#: The variable that tells a process of a sandbox where it is: arguments of `change_settings`, as JSON.
VARIABLE: Final = "SOC_TASKS_SANDBOX"


def change_settings(given: Mapping[str, Any], *, url: str, issuer: str, services: Mapping[str, str]) -> dict[str, Any]:
    """Return SOC_TASKS of a site in a sandbox.

    Tasks with an App Engine target become tasks with an HTTP target: nothing stands before this site that would take
    forged headers off, and so a token is to prove each call. Other services are only those that are named here: tasks
    of a sandbox are to reach nobody else.

    Args:
        given: what the site's settings say.
        url: base URL of the site.
        issuer: whose tokens prove a call.
        services: base URLs of other services.
    """
    return {
        **given,
        "BACKEND": "cloud_tasks",
        "TARGET": "http",
        "URL": url,
        "AUDIENCE": None,
        "SERVICE_ACCOUNT": given.get("SERVICE_ACCOUNT") or ACCOUNT,
        "SERVICES": dict(services),
        "OIDC_ISSUER": issuer,
        "OIDC_CERTS_URL": f"{issuer}/certs",
    }


def change_hosts(given: Sequence[str], url: str) -> list[str]:
    """Return ALLOWED_HOSTS with the host of a URL; what Django puts in for an empty list in development holds it.

    Args:
        given: what the site's settings say.
        url: base URL of the site.
    """
    host = urlsplit(url).hostname or ""
    return list(given) if host in given or (settings.DEBUG and not given) else [*given, host]


def make_environment(server: str, *, url: str, issuer: str, services: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that is to run `python -m soc_tasks.sandbox`.

    Args:
        server: host and port of the server.
        url: base URL of the site.
        issuer: whose tokens prove a call.
        services: base URLs of other services.
    """
    told = {"url": url, "issuer": issuer, "services": dict(services)}
    return {service.EMULATOR_VARIABLE: server, VARIABLE: json.dumps(told)}


def apply_environment() -> None:
    """Change the settings of this process as its environment says."""
    told = json.loads(os.environ[VARIABLE])
    settings.SOC_TASKS = change_settings(getattr(settings, "SOC_TASKS", {}), **told)
    settings.ALLOWED_HOSTS = change_hosts(settings.ALLOWED_HOSTS, told["url"])


@contextmanager
def set_variable(host: str) -> Iterator[None]:
    """Have clients in this process find a server, for the block.

    Args:
        host: host and port.
    """
    before = os.environ.get(service.EMULATOR_VARIABLE)
    os.environ[service.EMULATOR_VARIABLE] = host
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(service.EMULATOR_VARIABLE, None)
        else:
            os.environ[service.EMULATOR_VARIABLE] = before


def forget(host: str, certs_url: str) -> None:
    """Close what this process has kept of a server: another one may get its ports.

    Args:
        host: host and port of its API.
        certs_url: where its keys were.
    """
    kept = service._services.pop((os.getpid(), host), None)
    if kept is not None:
        kept.close()
    forget_keys(certs_url)
