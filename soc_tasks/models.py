"""Tables of the state on Django's databases. Rooms other than state/ do not use them.

They are called rows so that `manage.py shell`, which imports models, leaves the name `Iteration` to the public class.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.db import models

from soc_tasks.fields import ExactCharField

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


if TYPE_CHECKING:
    # What goes in and comes out is what a DateTimeField takes and gives.
    _Base = models.DateTimeField[Any, Any]
else:
    _Base = models.BigIntegerField


class MomentField(_Base):
    """An aware datetime, kept as whole microseconds since the epoch in UTC.

    Unlike DateTimeField it means the same with USE_TZ on and off, on every database, and when summer time ends.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Return what is stored."""
        if isinstance(value, datetime):
            return (value - _EPOCH) // _MICROSECOND
        return super().get_prep_value(value)

    def from_db_value(self, value: int | None, *_: Any) -> datetime | None:
        """Return what was stored, in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


class IterationRow(models.Model):
    """A run over a set of entities."""

    id = models.CharField(max_length=32, primary_key=True)
    name = models.CharField(max_length=255)
    status = models.CharField(max_length=16)
    unfinished = models.IntegerField()
    total = models.BigIntegerField(null=True)
    options = models.TextField()
    parked = models.IntegerField(default=0, db_default=0)
    concurrency = models.IntegerField(null=True)
    wanted = models.BooleanField(default=False, db_default=False)
    created = MomentField()
    finished = MomentField(null=True)
    error = models.TextField(blank=True)

    class Meta:
        """Newest first is how they are listed."""

        db_table = "soc_tasks_iteration"
        indexes = (
            models.Index(fields=["-created"], name="soc_tasks_it_created"),
            models.Index(fields=["finished"], name="soc_tasks_it_finished"),
        )
        permissions = (("run_over_selection", "Can run tasks over a selection of rows in the admin"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.status})"


class ShardRow(models.Model):
    """A range of an iteration's keys, worked off one batch after the other."""

    iteration = models.ForeignKey(IterationRow, on_delete=models.CASCADE, related_name="shards")
    index = models.IntegerField()
    start = models.TextField(null=True)
    end = models.TextField(null=True)
    cursor = models.TextField(null=True)
    context = models.TextField()
    step = models.IntegerField()
    epoch = models.IntegerField()
    owner = models.CharField(max_length=32, blank=True)
    until = MomentField(null=True)
    status = models.CharField(max_length=16)
    attempts = models.IntegerField()
    done = models.BigIntegerField()
    failed = models.BigIntegerField(default=0, db_default=0)
    halved = models.IntegerField(null=True)
    advanced = models.BooleanField(default=False, db_default=False)
    rate = models.FloatField(default=0.0, db_default=0.0)
    batch_size = models.IntegerField(null=True)
    expected = models.BigIntegerField(null=True)
    drained = models.BooleanField(default=False, db_default=False)
    wants = models.IntegerField(null=True)
    hold = models.TextField(blank=True, default="", db_default="")
    task = models.CharField(max_length=100, blank=True, default="", db_default="")
    progressed_at = MomentField(null=True)
    error = models.TextField(blank=True)

    class Meta:
        """One row for each index."""

        db_table = "soc_tasks_shard"
        constraints = (models.UniqueConstraint(fields=["iteration", "index"], name="soc_tasks_shard_index"),)
        indexes = (models.Index(fields=["status", "progressed_at"], name="soc_tasks_shard_progress"),)

    def __str__(self) -> str:
        return f"{self.iteration_id}[{self.index}] ({self.status})"


class FailedItemRow(models.Model):
    """An entity that an iteration gave up, with its error."""

    iteration = models.ForeignKey(IterationRow, on_delete=models.CASCADE, related_name="failed_items")
    shard = models.IntegerField()
    key = models.TextField()
    entity = models.CharField(max_length=255)
    error_type = models.CharField(max_length=255)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    attempts = models.IntegerField(default=1)
    created = MomentField()

    class Meta:
        """Listed and tried again in the order in which they failed."""

        db_table = "soc_tasks_faileditem"
        indexes = (models.Index(fields=["iteration", "id"], name="soc_tasks_failed_iteration"),)

    def __str__(self) -> str:
        return f"{self.entity} of {self.iteration_id}: {self.error_type}"


class KeptTaskRow(models.Model):
    """The columns of a task that is kept outside a queue."""

    queue = ExactCharField(max_length=100)
    name = ExactCharField(max_length=500)
    path = models.TextField()
    script_name = models.TextField(blank=True)
    headers = models.TextField()
    body = models.BinaryField()
    options = models.TextField()
    start_id = models.CharField(max_length=32)
    created = MomentField()

    class Meta:
        """Shared by outbox and dead letters."""

        abstract = True

    def __str__(self) -> str:
        return f"{self.queue}/{self.name}"


class OutboxRow(KeptTaskRow):
    """A task that committed with somebody's transaction and waits to be handed to the backend."""

    leased_until = MomentField(null=True)
    attempts = models.IntegerField(default=0)

    class Meta:
        """Relayed oldest first."""

        db_table = "soc_tasks_outbox"
        indexes = (models.Index(fields=["leased_until", "id"], name="soc_tasks_outbox_due"),)


class DeadLetterRow(KeptTaskRow):
    """A task that failed for good."""

    attempts = models.IntegerField()
    error_type = models.CharField(max_length=255)
    error = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    iteration = models.CharField(max_length=32, blank=True)

    class Meta:
        """Listed newest first, by queue."""

        db_table = "soc_tasks_deadletter"
        indexes = (
            models.Index(fields=["queue", "-id"], name="soc_tasks_dead_queue"),
            models.Index(fields=["iteration"], name="soc_tasks_dead_iteration"),
            models.Index(fields=["created"], name="soc_tasks_dead_created"),
            models.Index(fields=["error_type", "-id"], name="soc_tasks_dead_error"),
        )


class PayloadRow(models.Model):
    """What a task carries that is too large for it; empty when the task has ended."""

    start_id = models.CharField(max_length=32, primary_key=True)
    data = models.BinaryField()
    until = MomentField()

    class Meta:
        """Swept when its time is over."""

        db_table = "soc_tasks_payload"
        indexes = (models.Index(fields=["until"], name="soc_tasks_payload_until"),)

    def __str__(self) -> str:
        return self.start_id


class ReceiptRow(models.Model):
    """Proof that an atomic task ran: it committed with what the task did."""

    start_id = models.CharField(max_length=32, primary_key=True)
    created = MomentField()

    class Meta:
        """Swept by age."""

        db_table = "soc_tasks_receipt"
        indexes = (models.Index(fields=["created"], name="soc_tasks_receipt_age"),)

    def __str__(self) -> str:
        return self.start_id


class Console(models.Model):
    """No table: what the admin's console is registered under, and what its permissions belong to."""

    class Meta:
        """Who may look, who may steer, who may start, and who may see what tasks carry."""

        managed = False
        default_permissions = ()
        permissions = (
            ("view_console", "Can see queues, tasks, iterations and failures in the console"),
            ("operate", "Can pause, resume, purge, run now, delete, retry and discard in the console"),
            ("start", "Can start tasks in the console"),
            ("view_payloads", "Can see contexts, headers and tracebacks of tasks in the console"),
        )
        verbose_name = "console"
        verbose_name_plural = "console"

    def __str__(self) -> str:
        return "console"


class AuditRow(models.Model):
    """What somebody did in the console. Without a foreign key: it outlives the user."""

    created = MomentField()
    user_id = models.CharField(max_length=255)
    user = models.CharField(max_length=255)
    action = models.CharField(max_length=64)
    target = models.TextField()
    outcome = models.TextField(blank=True)

    class Meta:
        """Listed newest first, by key."""

        db_table = "soc_tasks_audit"

    def __str__(self) -> str:
        return f"{self.user}: {self.action} {self.target}"
