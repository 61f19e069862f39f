"""The engine's tables.

At run time those of tasks, queues and workers are read and written by hand-written SQL (store/), not by these models.

Times are whole microseconds since the epoch, UTC. Counters have defaults in the database, so that a process of an
older release, which does not know a newer column, can go on writing rows.
"""

from __future__ import annotations

from django.db import models

from soc_tasks.engine.indexes import NameIndex, StateIndex
from soc_tasks.fields import ExactCharField, KeyField


class QueuedTask(models.Model):
    """A task that waits or runs, or the name of one that ended a short while ago."""

    #: Rises with time, for the most part; those who enqueue choose it.
    id = KeyField(primary_key=True)
    #: Its name; of the server's queues (server/) project/location/queue, which no queue of a site can be called.
    queue = ExactCharField(max_length=200)
    name = ExactCharField(max_length=500)
    #: 0 waits, 1 is in a worker's hands, 2 ended (its name is kept until `due`), 3 waits for a process of its own.
    state = models.SmallIntegerField(db_default=0)
    #: When it may run; below 0: at once, past pause and rates, since somebody asked for that at the time it stands for.
    due = models.BigIntegerField()
    #: Id of the worker that has it.
    owner = models.BigIntegerField(null=True)
    path = models.TextField()
    script_name = models.TextField(db_default="")
    #: As JSON; "" for a task that has none of its own: what those are follows from `start_id`.
    headers = models.TextField()
    body = models.BinaryField()
    #: dispatch_deadline, retry, service, version, instance, as far as they are set, as JSON; "" if none is.
    options = models.TextField(db_default="")
    start_id = models.CharField(max_length=32)
    named = models.BooleanField(db_default=False)
    created = models.BigIntegerField()
    attempts = models.IntegerField(db_default=0)
    responses = models.IntegerField(db_default=0)
    first_attempt = models.BigIntegerField(null=True)
    #: HTTP status of the last answer; 504: there was none in time.
    status = models.SmallIntegerField(null=True)
    #: How often in a row it was answered with "busy", which counts as no attempt.
    busy = models.IntegerField(db_default=0)
    #: How often in a row a process died while it ran nothing but this task.
    crashes = models.SmallIntegerField(db_default=0)
    #: Whether it runs in a process that runs nothing else now.
    alone = models.BooleanField(db_default=False)
    #: How far it had come when it was last started alone.
    progress = models.TextField(db_default="")
    #: Since when no worker that took it knew its URL or its function.
    unknown = models.BigIntegerField(null=True)
    #: 1: `id` stands in `name` (start_ids.py), by which the row is found, and it is not in the index of names. Else 0.
    keyed = models.SmallIntegerField(db_default=0)
    #: What whoever made the last call wants to know at the next one.
    note = models.TextField(db_default="")

    class Meta:
        """What a claim costs must not grow with what waits elsewhere: each index holds the rows of one state only."""

        db_table = "soc_tasks_engine_task"
        indexes = (
            NameIndex(fields=["queue", "name"], name="soc_tasks_engine_names"),
            StateIndex(fields=["queue", "due", "id"], state=0, name="soc_tasks_engine_waiting"),
            StateIndex(fields=["owner", "queue"], state=1, name="soc_tasks_engine_running"),
            StateIndex(fields=["due"], state=2, name="soc_tasks_engine_ended"),
            StateIndex(fields=["due"], state=3, name="soc_tasks_engine_suspect"),
        )

    def __str__(self) -> str:
        return f"{self.queue}/{self.name}"


class QueueState(models.Model):
    """What is kept of a queue between dispatches; its options stand in the settings."""

    name = ExactCharField(max_length=200, unique=True)
    paused = models.BooleanField(db_default=False)
    #: The token bucket of a queue with a rate: how full it was at `filled`.
    tokens = models.FloatField(db_default=0.0)
    filled = models.BigIntegerField(db_default=0)
    #: Tasks a second that the queue was held to at `capped`, because it was idle or its target is overloaded.
    cap = models.FloatField(null=True)
    capped = models.BigIntegerField(db_default=0)
    #: Seconds in which that doubles.
    doubling = models.FloatField(db_default=1.0)
    #: When it was last purged.
    purged = models.BigIntegerField(null=True)

    class Meta:
        """A queue has a row once it was paused, purged, or has a rate."""

        db_table = "soc_tasks_engine_queue"

    def __str__(self) -> str:
        return self.name


class WorkerProcess(models.Model):
    """A process that runs tasks, for as long as it says that it is alive."""

    #: Machine, boot and process namespace; `pid` and `born` name the process there.
    host = models.CharField(max_length=255)
    pid = models.BigIntegerField()
    born = models.BigIntegerField(db_default=0)
    started = models.BigIntegerField()
    heartbeat = models.BigIntegerField()
    #: Counts heartbeats: others judge it by change, not by their own clock.
    beats = models.BigIntegerField(db_default=0)
    #: True for the server (server/), of which there is one at a time; else NULL.
    serves = models.BooleanField(null=True, unique=True)

    class Meta:
        """A task's `owner` is the id of such a row; ids are never used again."""

        db_table = "soc_tasks_engine_worker"

    def __str__(self) -> str:
        return f"{self.pid} on {self.host}"


class QueueMinute(models.Model):
    """What came of a queue's attempts in one minute; each worker adds what it has counted (tally.py)."""

    #: When the minute began.
    minute = models.BigIntegerField()
    queue = ExactCharField(max_length=200)
    #: Attempts that were answered well, and those that were not.
    succeeded = models.BigIntegerField(db_default=0)
    failed = models.BigIntegerField(db_default=0)
    #: Tasks that failed for good; the attempt counts as failed, too.
    dead = models.BigIntegerField(db_default=0)
    #: How long all of these attempts took together, microseconds.
    spent = models.BigIntegerField(db_default=0)

    class Meta:
        """Kept for two days."""

        db_table = "soc_tasks_engine_minute"
        constraints = (models.UniqueConstraint(fields=["minute", "queue"], name="soc_tasks_engine_minute_key"),)

    def __str__(self) -> str:
        return f"{self.queue} at {self.minute}"


class ServedQueue(models.Model):
    """A queue of the server (server/), with its configuration; or the name of one that was deleted."""

    #: project/location/queue.
    name = ExactCharField(max_length=200, unique=True)
    #: The Queue of the Cloud Tasks API v2, as JSON; what changes by itself stands in QueueState.
    configuration = models.TextField()
    created = models.BigIntegerField()
    deleted = models.BigIntegerField(null=True)

    class Meta:
        """Names are kept for a while after the queue."""

        db_table = "soc_tasks_engine_served_queue"

    def __str__(self) -> str:
        return self.name


class ServedOperation(models.Model):
    """A batch that the server was asked for, and what came of it."""

    name = ExactCharField(max_length=300, unique=True)
    #: A google.longrunning.Operation, serialized.
    operation = models.BinaryField()
    created = models.BigIntegerField(db_index=True)

    class Meta:
        """Kept for a day."""

        db_table = "soc_tasks_engine_served_operation"

    def __str__(self) -> str:
        return self.name
