"""Indexes that hold some rows only, and all of them where no index can be partial.

Django would leave a partial index out there, and warn of it at every migration.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Q


class StateIndex(models.Index):
    """An index of the rows in one state; where no index can be partial, the state is its first column.

    Args:
        fields: names of the columns.
        state: the state.
        name: the index's name.
    """

    def __init__(self, *, fields: list[str], state: int, name: str) -> None:
        super().__init__(fields=fields, name=name)
        self.state = state

    def deconstruct(self) -> Any:
        """Return what migrations write down."""
        path, arguments, options = super().deconstruct()
        return path, arguments, {**options, "state": self.state}

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, *args: Any, **options: Any
    ) -> Any:
        """Return the statement that makes the index."""
        if schema_editor.connection.features.supports_partial_indexes:
            index = models.Index(fields=self.fields, name=self.name, condition=Q(state=self.state))
        else:
            index = models.Index(fields=["state", *self.fields], name=self.name)
        return index.create_sql(model, schema_editor, *args, **options)


class NameIndex(models.Index):
    """A unique index of the names by whose key no row is found; where none can be partial, of all names.

    Args:
        fields: names of the columns.
        name: the index's name.
    """

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, *args: Any, **options: Any
    ) -> Any:
        """Return the statement that makes the index."""
        partial = schema_editor.connection.features.supports_partial_indexes
        condition = Q(keyed=0) if partial else None
        index = models.UniqueConstraint(fields=self.fields, name=self.name, condition=condition)
        return index.create_sql(model, schema_editor)
