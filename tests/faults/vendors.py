"""Which test runs on which kind of database, and on which of them only with `make chaos`."""

from __future__ import annotations

import pytest

SERVERS = ("postgresql", "mariadb")
ALL = ("sqlite", *SERVERS)


def on(*vendors, long=()):
    """Parametrize `engine_database`.

    Args:
        vendors: the databases.
        long: those on which the test is left out but for `make chaos`.
    """
    return pytest.mark.parametrize("engine_database", [_param(vendor, long) for vendor in vendors], indirect=True)


def _param(vendor, long):
    marks = [pytest.mark.requires(vendor)] if vendor in SERVERS else []
    return pytest.param(vendor, marks=[*marks, pytest.mark.long] if vendor in long else marks)
