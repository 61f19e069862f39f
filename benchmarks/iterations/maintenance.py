"""django-maintenance-tasks, in its own environment: Django 6.1 on Python 3.13, run at once in this process."""

from __future__ import annotations

from typing import Any

from maintenance_tasks import MaintenanceTask, runner  # type: ignore[import-not-found] # it is there only

from benchmarks.iterations.work import BATCH, do
from benchmarks.models import Row


class WorkOnRows(MaintenanceTask):  # type: ignore[misc] # as above
    """Work on each row."""

    batch_size = BATCH

    def collection(self) -> Any:
        """Return the rows."""
        return Row.objects.all()

    def process(self, item: Any) -> None:
        """Work on one."""
        do(item)


def run() -> None:
    """Run it to its end."""
    started = runner.start(WorkOnRows.name)
    started.refresh_from_db()
    if started.status != "succeeded":
        raise RuntimeError(f"the peer's run ended as {started.status}: {started.error_message}")
