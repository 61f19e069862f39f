"""A task as a row, and back: for the outbox and the dead letters."""

from __future__ import annotations

from typing import TypeVar

from django.db import connections
from django.db.models import Model
from django.db.models.constants import OnConflict

from soc_tasks.models import KeptTaskRow
from soc_tasks.state.kept_tasks import TEXTS, describe_task, rebuild_task
from soc_tasks.values import Task

Row = TypeVar("Row", bound=KeptTaskRow)


def write_task(task: Task, row: Row) -> Row:
    """Copy `task` into the columns of `row`."""
    for name, text in describe_task(task).items():
        setattr(row, name, text)
    row.body = task.body
    row.created = task.created
    return row


def insert_or_ignore(row: Model, using: str) -> bool:
    """Insert a row unless its key is there; return whether it was inserted.

    ON CONFLICT DO NOTHING: an IntegrityError would abort PostgreSQL's transaction, and Django's bulk_create with
    ignore_conflicts does not tell what became of the row.
    """
    connection = connections[using]
    fields = row._meta.concrete_fields
    names = ", ".join(connection.ops.quote_name(field.column or field.name) for field in fields)
    marks = ", ".join("%s" for _ in fields)
    values = [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
    insert = connection.ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = connection.ops.on_conflict_suffix_sql([], OnConflict.IGNORE, [], [])
    table = connection.ops.quote_name(row._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"{insert} {table} ({names}) VALUES ({marks}) {suffix}", values)
        return bool(cursor.rowcount)


def read_task(row: KeptTaskRow) -> Task:
    """Return the task that a row holds."""
    texts = {name: getattr(row, name) for name in TEXTS}
    return rebuild_task(texts, bytes(row.body), row.created)
