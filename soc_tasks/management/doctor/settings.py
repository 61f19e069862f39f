"""SOC_TASKS, CLOUD_TASKS_QUEUES and what they need of the site: the library's system checks, all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.core.checks import ERROR, CheckMessage
from django.core.checks.registry import registry
from django.db import Error, connections

from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "settings"


def examine() -> Iterator[Finding]:
    """Run the checks of soc_tasks.checks, those that ask databases and send a task through the middleware included."""
    messages: list[CheckMessage] = []
    checks: list[Any] = [check for check in registry.get_checks(True) if check.__module__ == "soc_tasks.checks"]
    # A site without a database has an alias all the same, that of Django's dummy.
    databases = [alias for alias in connections if not connections.settings[alias]["ENGINE"].endswith(".dummy")]
    for check in checks:
        try:
            messages += check(app_configs=None, databases=databases)
        except Error as error:
            # The family of the database tells what is the matter with it.
            yield Finding(FAMILY, WARN, f"{check.__name__} found no database to ask: {error}")
    for message in messages:
        level = FAIL if message.level >= ERROR else WARN
        yield Finding(FAMILY, level, str(message.msg), str(message.hint or ""), str(message.id or ""))
    if not messages:
        yield Finding(FAMILY, OK, f"{len(checks)} system checks find nothing wrong.")
