"""`tasks queues`: the queues and what waits in them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from soc_tasks.management.verbs.embedded import open_backend
from soc_tasks.management.verbs.tables import show_age, write_table

help = "List the queues: state, tasks due, scheduled and running, and for how long the oldest has been due."


def add_arguments(parser: CommandParser) -> None:
    """Take none yet."""


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print a line for each queue."""
    from soc_tasks.conf import get_queues
    from soc_tasks.engine.records import QueueRecord

    records = {record.name: record for record in open_backend().list_queues()}
    configured = get_queues()
    now = datetime.now(UTC)
    rows = []
    for name in sorted({*records, *configured}):
        record = records.get(name, QueueRecord(name=name))
        state = "paused" if record.paused else "running"
        if record.pace is not None:
            state += f", at {record.pace:.2g}/s for now"
        rows.append((
            name,
            state if name in configured else f"{state}, not configured",
            record.due,
            record.scheduled,
            record.running,
            show_age(now, record.oldest),
        ))  # fmt: skip
    write_table(command, ("queue", "state", "due", "scheduled", "running", "oldest"), rows)
