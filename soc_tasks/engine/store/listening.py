"""Hearing PostgreSQL's notifications, on a connection of its own."""

from __future__ import annotations

import logging
from contextlib import suppress
from copy import deepcopy
from typing import Any, Final

from django.db import Error, connections

logger = logging.getLogger("soc_tasks.engine")

#: Notifications are told to those who listen in the same database.
CHANNEL: Final = "soc_tasks"


class PostgresListener:
    """A connection that listens; what it hears carries nothing.

    Args:
        connection: an open connection of Django's that nobody else uses.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._raw = connection.connection
        # Kept: a connection that is lost does not tell it any more.
        self._number = int(self._raw.fileno())

    @classmethod
    def open(cls, alias: str) -> PostgresListener | None:
        """Connect to a database and listen; None where that fails (some proxies do not pass LISTEN on)."""
        connection: Any = connections[alias].copy()
        # A pool would give the connection, with what it hears, to somebody else.
        settings = deepcopy(connection.settings_dict)
        settings["OPTIONS"].pop("pool", None)
        connection.settings_dict = settings
        try:
            connection.connect()
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
        except Error as error:
            logger.info("notifications of the database %s cannot be heard, looking instead: %s", alias, error)
            with suppress(Error):
                connection.close()
            return None
        return cls(connection)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something is heard, or the connection is lost."""
        return self._number

    def drain(self) -> bool:
        """Take in what was heard; False: the connection is lost."""
        try:
            low_level = getattr(self._raw, "pgconn", None)
            if low_level is None:
                # psycopg2
                self._raw.poll()
                self._raw.notifies.clear()
                return True
            low_level.consume_input()
            while low_level.notifies() is not None:
                continue
        except Exception:  # each driver has its own errors, and all of them mean the same
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        with suppress(Error):
            self._connection.close()
