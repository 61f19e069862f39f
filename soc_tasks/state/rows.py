"""A task as a row, and back: for the outbox and the dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import simplejson
from django.db import connections
from django.db.models import Model
from django.db.models.constants import OnConflict

from soc_tasks.models import KeptTaskRow
from soc_tasks.values import RetryOptions, Task

Row = TypeVar("Row", bound=KeptTaskRow)


def write_task(task: Task, row: Row) -> Row:
    """Copy `task` into the columns of `row`."""
    options: dict[str, Any] = {
        name: value
        for name in ("service", "version", "instance", "dispatch_deadline", "named")
        if (value := getattr(task, name))
    }
    if task.retry is not None:
        options["retry"] = task.retry.as_dict()
    if task.eta is not None:
        options["eta"] = task.eta.isoformat()
    row.queue = task.queue
    row.name = task.name
    row.path = task.path
    row.script_name = task.script_name
    row.headers = simplejson.dumps(dict(task.headers))
    row.body = task.body
    row.options = simplejson.dumps(options)
    row.start_id = task.start_id
    row.created = task.created
    return row


def spell_out(text: str) -> str:
    """Return a text as every database can store it: NUL and lone surrogates, as file names bring them, spelled out."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


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
    options = simplejson.loads(row.options)
    retry, eta = options.pop("retry", None), options.pop("eta", None)
    return Task(
        queue=row.queue,
        name=row.name,
        path=row.path,
        script_name=row.script_name,
        headers=simplejson.loads(row.headers),
        body=bytes(row.body),
        start_id=row.start_id,
        created=row.created,
        retry=None if retry is None else RetryOptions(**retry),
        eta=None if eta is None else datetime.fromisoformat(eta),
        **options,
    )
