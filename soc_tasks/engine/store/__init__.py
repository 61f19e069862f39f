"""Stores: `get_store()` returns the one for the kind of database that an alias is."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from django.db import connections
from django.utils.module_loading import import_string

from soc_tasks.errors import ConfigurationError, NotSupportedError

if TYPE_CHECKING:
    from soc_tasks.engine.store.base import Store

_STORES = {
    "sqlite": "soc_tasks.engine.store.sqlite.SqliteStore",
    "postgresql": "soc_tasks.engine.store.postgresql.PostgresStore",
    # Django's name for MariaDB as well.
    "mysql": "soc_tasks.engine.store.mysql.MysqlStore",
}


@lru_cache(maxsize=16)
def get_store(alias: str) -> Store:
    """Return the store of a database (raises as `make_store`)."""
    return make_store(alias)


def make_store(alias: str) -> Store:
    """Make a store of a database.

    Raises:
        ConfigurationError: there is no such alias.
        NotSupportedError: the engine does not run on this kind of database.
    """
    if alias not in connections:
        raise ConfigurationError(f'SOC_TASKS["DATABASE"] is {alias!r}, which is no alias of DATABASES.')
    vendor = connections[alias].vendor
    if vendor not in _STORES:
        raise NotSupportedError(
            f"The embedded engine does not run on {vendor} (alias {alias!r}); it runs on {', '.join(_STORES)}."
        )
    store: Store = import_string(_STORES[vendor])(alias)
    return store
