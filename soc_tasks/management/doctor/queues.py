"""Queues: are those of CLOUD_TASKS_QUEUES what dispatches, and do tasks lie in others?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from django.db import Error

from soc_tasks.conf import get_queues, get_settings
from soc_tasks.errors import SocTasksError
from soc_tasks.management.doctor.findings import FAIL, OK, WARN, Finding

FAMILY: Final = "queues"


def examine() -> Iterator[Finding]:
    """Compare the settings with the service's queues, or with where tasks lie."""
    backend = get_settings().backend
    if backend == "cloud_tasks":
        yield from _compare()
    elif backend == "embedded":
        yield from _look_for_others()
    else:
        yield Finding(FAMILY, OK, f"{len(get_queues())} queues are configured.")


def _compare() -> Iterator[Finding]:
    from soc_tasks.backends.cloud_tasks.queues import QueueService

    for name in ("queue.yaml", "queue.xml"):
        if (Path.cwd() / name).exists():
            yield Finding(
                FAMILY,
                WARN,
                f"Deploying the {name} here changes queues behind the settings' back, and disables others.",
                f"git rm {name}",
            )
    try:
        changes = QueueService().plan()
    except SocTasksError as error:
        yield Finding(FAMILY, FAIL, str(error), "manage.py tasks queues --plan")
        return
    for change in changes:
        missing = not change.exists
        what = f"Cloud Tasks has no queue {change.queue!r}" if missing else f"A queue differs: {change.describe()}"
        yield Finding(FAMILY, FAIL if missing else WARN, f"{what}.", "manage.py tasks queues --apply")
    if not changes:
        yield Finding(FAMILY, OK, f"The {len(get_queues())} queues are as CLOUD_TASKS_QUEUES says.")


def _look_for_others() -> Iterator[Finding]:
    from soc_tasks.backends import get_backend

    configured = get_queues()
    try:
        records = get_backend().list_queues(1)
    except Error:
        # The family of the database has said what is wrong with it.
        return
    others = [record for record in records if record.name not in configured and (record.due or record.scheduled)]
    for record in others:
        yield Finding(
            FAMILY,
            WARN,
            f"Tasks wait in the queue {record.name!r}, which CLOUD_TASKS_QUEUES does not name: nothing limits it.",
            f'Add {{"name": "{record.name}"}} to CLOUD_TASKS_QUEUES, or: manage.py tasks purge {record.name}',
        )
    if not others:
        yield Finding(FAMILY, OK, f"{len(configured)} queues are configured, and tasks lie in no other.")
