"""What each batch does with its shard's row and its iteration's, in SQL that is spelled once.

Django's ORM would build and compile every statement anew: a millisecond and a half for each batch, against a third.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from soc_tasks.models import IterationRow, MomentField, ShardRow

#: From what a driver gives to what a field means.
Reader = Callable[[Any], Any]

_MOMENT: Final = MomentField()


def _read_bool(value: Any) -> bool:
    return bool(value)


def _make_reader(field: models.Field[Any, Any]) -> Reader | None:
    if isinstance(field, MomentField):
        return field.from_db_value
    return _read_bool if isinstance(field, models.BooleanField) else None


class Columns:
    """Some columns of a model's table: how they are named in SQL, and how their values are read and written."""

    def __init__(self, model: type[models.Model], names: Sequence[str], connection: BaseDatabaseWrapper) -> None:
        known = {field.name: field for field in model._meta.concrete_fields}
        fields = [known[name] for name in names]
        quote = connection.ops.quote_name
        self.table = quote(model._meta.db_table)
        self.names = tuple(names)
        self._quoted = [quote(field.column or field.name) for field in fields]
        self._readers = [
            (place, reader) for place, field in enumerate(fields) if (reader := _make_reader(field)) is not None
        ]

    @property
    def listed(self) -> str:
        """Return the columns as SELECT and RETURNING name them."""
        return ", ".join(self._quoted)

    @property
    def assigned(self) -> str:
        """Return the columns as SET gives them their values."""
        return ", ".join(f"{name} = %s" for name in self._quoted)

    def read(self, row: Sequence[Any]) -> dict[str, Any]:
        """Return what a row means, by names."""
        values = list(row)
        for place, reader in self._readers:
            values[place] = reader(values[place])
        return dict(zip(self.names, values, strict=True))

    def write(self, record: Any) -> list[Any]:
        """Return what a driver is given of a record's attributes."""
        values = [getattr(record, name) for name in self.names]
        return [_MOMENT.get_prep_value(value) if isinstance(value, datetime) else value for value in values]


class ShardTable:
    """The statements on one database.

    Args:
        alias: of the database.
        names: the fields of a shard that change.
    """

    def __init__(self, alias: str, names: tuple[str, ...]) -> None:
        self._alias = alias
        connection = connections[alias]
        quote = connection.ops.quote_name
        self._columns = Columns(ShardRow, names, connection)
        table = self._columns.table
        self._where = f"WHERE {quote('iteration_id')} = %s AND {quote('index')} = %s"
        select = f"SELECT {self._columns.listed} FROM {table} {self._where}"
        features = connection.features
        if features.has_select_for_update:
            lock = connection.ops.for_update_sql
            self._wait = f"{select} {lock()}"
            self._nowait = f"{select} {lock(nowait=features.has_select_for_update_nowait)}"
            self._skip = f"{select} {lock(skip_locked=features.has_select_for_update_skip_locked)}"
        else:
            # SQLite has no row locks: a write first takes the whole database, and never has to upgrade a read.
            owner = quote("owner")
            touch = f"UPDATE {table} SET {owner} = {owner} {self._where} RETURNING {self._columns.listed}"
            self._wait = self._nowait = touch
            self._skip = select
        self._save = f"UPDATE {table} SET {self._columns.assigned} {self._where}"

    def lock(self, iteration_id: str, index: int, *, wait: bool) -> dict[str, Any] | None:
        """Hold a row in the open transaction, and return its fields, or None where it is gone."""
        return self._find(self._wait if wait else self._nowait, iteration_id, index)

    def lock_free(self, iteration_id: str, index: int) -> dict[str, Any] | None:
        """Hold a row unless somebody else does, and return its fields, or None."""
        return self._find(self._skip, iteration_id, index)

    def _find(self, sql: str, iteration_id: str, index: int) -> dict[str, Any] | None:
        with connections[self._alias].cursor() as cursor:
            cursor.execute(sql, (iteration_id, index))
            rows = cursor.fetchall()
        return self._columns.read(rows[0]) if rows else None

    def save(self, iteration_id: str, index: int, record: Any) -> None:
        """Write the fields of a row."""
        with connections[self._alias].cursor() as cursor:
            cursor.execute(self._save, [*self._columns.write(record), iteration_id, index])


class IterationTable:
    """The statements that read an iteration, on one database."""

    def __init__(self, alias: str, names: tuple[str, ...]) -> None:
        self._alias = alias
        connection = connections[alias]
        quote = connection.ops.quote_name
        self._columns = Columns(IterationRow, names, connection)
        table, where = self._columns.table, f"WHERE {quote('id')} = %s"
        self._select = f"SELECT {self._columns.listed} FROM {table} {where}"
        if connection.features.has_select_for_update:
            self._lock = f"{self._select} {connection.ops.for_update_sql()}"
        else:
            status = quote("status")
            self._lock = f"UPDATE {table} SET {status} = {status} {where} RETURNING {self._columns.listed}"

    def find(self, iteration_id: str, *, lock: bool) -> dict[str, Any] | None:
        """Return the fields of a row, or None where it is gone."""
        with connections[self._alias].cursor() as cursor:
            cursor.execute(self._lock if lock else self._select, (iteration_id,))
            rows = cursor.fetchall()
        return self._columns.read(rows[0]) if rows else None
