"""`tasks doctor`: is this site fit to run its tasks? A module for each family of checks.

A family has a docstring, whose first line says what it looks at, and `examine()`, which yields findings and changes
nothing. To add one, write the module and name it in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Final

from soc_tasks.management.doctor.findings import FAIL, Finding

#: In their order: what the later ones need is looked at first.
FAMILIES: Final = ("settings", "database", "sqlite", "clock", "access", "queues", "google", "work")
#: Where this one fails the others cannot be asked.
_FIRST: Final = "settings"


def examine() -> Iterator[Finding]:
    """Yield what all families find; one that breaks is a finding itself."""
    for family in FAMILIES:
        failed = False
        try:
            for finding in import_module(f"{__name__}.{family}").examine():
                failed = failed or finding.level == FAIL
                yield finding
        except Exception as error:  # a doctor who falls ill says so, and goes on
            yield Finding(family, FAIL, f"This could not be looked at: {type(error).__name__}: {error}")
        if failed and family == _FIRST and not _can_go_on():
            return


def _can_go_on() -> bool:
    """Tell whether the settings can be read at all."""
    from soc_tasks.conf import get_queues, get_settings
    from soc_tasks.errors import ConfigurationError

    try:
        get_settings()
        get_queues()
    except ConfigurationError:
        return False
    return True
