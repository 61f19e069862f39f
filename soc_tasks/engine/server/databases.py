"""The database of a server: one of the site's, or a SQLite file of its own that is made and migrated here."""

from __future__ import annotations

import os
import secrets
from typing import Any, Final

from django.core.management import call_command
from django.db import connections
from django.db.utils import ConnectionHandler

#: The alias of a file of its own, in a site's settings.
ALIAS: Final = "soc_tasks_serve"


def describe(path: str) -> dict[str, Any]:
    """Return the entry of DATABASES for a file: what is committed survives the process, though maybe not the power."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.abspath(path),
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }


def open_file(path: str) -> str:
    """Add a SQLite file to the databases of this process, make its tables, and return its alias."""
    entry = ConnectionHandler({"default": {}, ALIAS: describe(path)}).settings[ALIAS]
    connections.settings[ALIAS] = entry
    migrate(ALIAS)
    return ALIAS


def set_up_alone(path: str) -> str:
    """Configure Django for a server without a site, make its tables, and return the alias of its database."""
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": describe(path)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["soc_tasks", "soc_tasks.engine"],
        LOGGING_CONFIG=None,
        SECRET_KEY=secrets.token_hex(),
        USE_TZ=True,
    )
    django.setup()
    migrate("default")
    return "default"


def migrate(alias: str) -> None:
    """Make the engine's tables."""
    call_command("migrate", "soc_tasks_engine", database=alias, verbosity=0, interactive=False)


def find_key(alias: str) -> str | None:
    """Return where the key of a database is kept: beside its file, if it is one."""
    connection: Any = connections[alias]
    if connection.vendor != "sqlite" or connection.is_in_memory_db():
        return None
    return f"{os.path.realpath(str(connection.settings_dict['NAME']))}.oidc.pem"


def is_ready(alias: str) -> bool:
    """Tell whether the server's tables are there, with all that this release has in them."""
    from soc_tasks.engine.models import ServedOperation, ServedQueue, WorkerProcess

    connection = connections[alias]
    workers = WorkerProcess._meta.db_table
    with connection.cursor() as cursor:
        names = set(connection.introspection.table_names(cursor))
        if not {ServedQueue._meta.db_table, ServedOperation._meta.db_table, workers} <= names:
            return False
        columns = connection.introspection.get_table_description(cursor, workers)
    return "serves" in {column.name for column in columns}
