"""Model fields that mean the same on every database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    _Base = models.CharField[str, str]
else:
    _Base = models.CharField


class ExactCharField(_Base):
    """A CharField whose values differ by case; MySQL and MariaDB would take "Name" and "name" for one."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        """Return the column's type, with a collation where the database's own would not tell case apart."""
        parameters: dict[str, Any] = {**super().db_parameters(connection)}
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_bin"
        return parameters
