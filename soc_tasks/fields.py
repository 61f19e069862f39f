"""Model fields that mean the same on every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    _Base = models.CharField[str, str]
    _Key = models.BigAutoField[int, int]
else:
    _Base = models.CharField
    _Key = models.BigAutoField


class KeyField(_Key):
    """A primary key that whoever inserts chooses; a database numbers what comes without one.

    SQLite keeps the highest number of an AUTOINCREMENT key in a table of its own, one more page for each commit.
    """

    def db_type_suffix(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return what a column's type ends with."""
        return None if connection.vendor == "sqlite" else super().db_type_suffix(connection)


class ExactCharField(_Base):
    """A CharField whose values differ by case; MySQL and MariaDB would take "Name" and "name" for one."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the column's type, with a collation where the database's own would not tell case apart."""
        parameters: dict[str, Any] = {**super().db_parameters(connection)}
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters
