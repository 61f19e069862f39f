"""`tasks queues`: the queues and what waits in them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from soc_tasks.management.verbs.opening import open_backend
from soc_tasks.management.verbs.printing import add_json_option, write_json_lines
from soc_tasks.management.verbs.tables import show_age, write_table

if TYPE_CHECKING:
    from soc_tasks.engine.records import QueueRecord

help = "List the queues and what waits in them; or compare CLOUD_TASKS_QUEUES with Google Cloud Tasks."


def add_arguments(parser: CommandParser) -> None:
    """Add what is done with Google Cloud Tasks."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--plan", action="store_true", help="print what differs from CLOUD_TASKS_QUEUES")
    choice.add_argument("--apply", action="store_true", help="create and update queues until nothing differs")
    choice.add_argument("--check", action="store_true", help="as --plan, and fail if anything differs")
    add_json_option(parser)


def handle(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print a line for each queue, or for each difference."""
    if options["plan"] or options["apply"] or options["check"]:
        _compare(command, apply=options["apply"], check=options["check"], as_json=options["json"])
    else:
        _list(command, as_json=options["json"])


def _compare(command: BaseCommand, *, apply: bool, check: bool, as_json: bool) -> None:
    from soc_tasks.backends.cloud_tasks.queues import QueueService
    from soc_tasks.conf import get_settings
    from soc_tasks.errors import SocTasksError

    if get_settings().backend != "cloud_tasks":
        raise CommandError(
            f'SOC_TASKS["BACKEND"] is {get_settings().backend!r}, which takes CLOUD_TASKS_QUEUES as they are; '
            "--plan, --apply and --check are for cloud_tasks."
        )
    for name in ("queue.yaml", "queue.xml"):
        if (Path.cwd() / name).exists():
            command.stderr.write(
                f"There is a {name} here. Deploying it changes queues behind the settings' back, and disables those "
                "that it does not name: remove it, or manage no queues by CLOUD_TASKS_QUEUES."
            )
    try:
        service = QueueService()
        changes = service.plan()
        if as_json:
            write_json_lines(command, (change.as_dict() for change in changes))
        else:
            for change in changes:
                command.stdout.write(change.describe())
        if apply:
            service.apply(changes)
    except SocTasksError as error:
        raise CommandError(str(error)) from error
    if not changes and not as_json:
        command.stdout.write("The queues are as CLOUD_TASKS_QUEUES says.")
    elif changes and check:
        raise CommandError("The queues differ from CLOUD_TASKS_QUEUES; `manage.py tasks queues --apply` mends that.")


def _list(command: BaseCommand, *, as_json: bool) -> None:
    from soc_tasks.conf import get_queues
    from soc_tasks.engine.records import QueueRecord

    backend = open_backend()
    records = {record.name: record for record in backend.list_queues()}
    configured = get_queues()
    now = backend.now()
    shown = [records.get(name, QueueRecord(name=name)) for name in sorted({*records, *configured})]
    if as_json:
        write_json_lines(
            command, (_describe(record, now) | {"configured": record.name in configured} for record in shown)
        )
        return
    rows = []
    for record in shown:
        state = "paused" if record.paused else "running"
        if record.pace is not None:
            state += f", at {record.pace:.2g}/s for now"
        counts = (record.due, record.scheduled, record.running)
        rows.append((
            record.name,
            state if record.name in configured else f"{state}, not configured",
            *("?" if count is None else count for count in counts),
            show_age(now, record.oldest),
        ))  # fmt: skip
    write_table(command, ("queue", "state", "due", "scheduled", "running", "oldest"), rows)


def _describe(record: QueueRecord, now: datetime) -> dict[str, Any]:
    return {
        "name": record.name,
        "paused": record.paused,
        "due": record.due,
        "scheduled": record.scheduled,
        "running": record.running,
        "oldest": record.oldest,
        "oldest_age": None if record.oldest is None else max(0.0, (now - record.oldest).total_seconds()),
        "pace": record.pace,
        "purged": record.purged,
    }
