"""The outbox in Django's databases: tasks that committed with a transaction, on the alias of that transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import Error, connections, router, transaction
from django.db.models import F, Q

from soc_tasks.models import OutboxRow
from soc_tasks.state.base import HeldId
from soc_tasks.state.rows import read_task, write_task
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks")

#: For how long an outbox row belongs to whoever took it, seconds.
OUTBOX_LEASE: Final = 30.0
#: Seconds after which aliases that had none of our tables are asked again.
LOOK_AGAIN: Final = 30.0


def belongs_on(alias: str) -> bool:
    """Tell whether an alias may hold our tables."""
    # A replica shows the tables of another alias, and must not be written to.
    return not connections.settings[alias]["TEST"].get("MIRROR") and router.allow_migrate_model(alias, OutboxRow)


def has_table(alias: str) -> bool:
    """Tell whether an alias has the table of the outbox; asks the database."""
    return OutboxRow._meta.db_table in connections[alias].introspection.table_names()


def _may_hold_outbox(alias: str) -> bool:
    if not belongs_on(alias):
        return False
    try:
        return has_table(alias)
    except Error:
        logger.warning("the database %s cannot be reached; what waits in its outbox stays there", alias)
        return False


class DjangoOutbox:
    """Writes, leases and drops outbox rows.

    Args:
        alias: the alias that holds the state.
    """

    def __init__(self, alias: str) -> None:
        #: Aliases that were seen to hold our tables: tables do not go away.
        self._outboxes = [alias]
        self._look_at = 0.0
        self._written: set[str] = set()
        #: Aliases that were seen to hold none of them, and when to ask again.
        self._without: dict[str, float] = {}

    def hold_tasks(self, tasks: Sequence[Task], using: str) -> list[HeldId]:
        """Write outbox rows, leased to the writer until its transaction is over."""
        until = datetime.now(UTC) + timedelta(seconds=OUTBOX_LEASE)
        ids: list[HeldId] = []
        for task in tasks:
            row = write_task(task, OutboxRow(leased_until=until))
            row.save(using=using, force_insert=True)
            ids.append(row.pk)
        self._written.add(using)
        return ids

    def take_held(self, using: str, *, limit: int = 100) -> Iterator[tuple[HeldId, Task]]:
        """Lease held tasks, oldest first."""
        now = datetime.now(UTC)
        rows = OutboxRow.objects.using(using).filter(Q(leased_until=None) | Q(leased_until__lt=now)).order_by("pk")
        with transaction.atomic(using=using):
            if connections[using].features.has_select_for_update_skip_locked:
                rows = rows.select_for_update(skip_locked=True)
            taken = list(rows[:limit])
            free = OutboxRow.objects.using(using).filter(pk__in=[row.pk for row in taken])
            if taken:
                free.update(leased_until=now + timedelta(seconds=OUTBOX_LEASE), attempts=F("attempts") + 1)
        for row in taken:
            yield row.pk, read_task(row)

    def outbox_aliases(self) -> list[str]:
        """Return the aliases that hold this app's tables, `DATABASE` first; one that cannot be reached is left out."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_AGAIN
            for alias in connections:
                if alias not in self._outboxes and _may_hold_outbox(alias):
                    self._outboxes.append(alias)
        return list(self._outboxes)

    def has_outbox(self, alias: str) -> bool:
        """Tell whether tasks can be held on an alias."""
        if alias in self._outboxes:
            return True
        if time.monotonic() < self._without.get(alias, 0.0):
            return False
        if belongs_on(alias) and has_table(alias):
            self._outboxes.append(alias)
            return True
        self._without[alias] = time.monotonic() + LOOK_AGAIN
        return False

    def open_outboxes(self) -> set[str]:
        """Return the aliases whose outbox was written to, and that have a transaction open in this thread."""
        return {alias for alias in self._written if connections[alias].in_atomic_block}

    def find_held(self, tasks: Sequence[Task], using: str) -> set[tuple[str, str]]:
        """Return queue and name of those of `tasks` that wait in the outbox of `using`."""
        names = [task.name for task in tasks]
        rows = OutboxRow.objects.using(using).filter(name__in=names).values_list("queue", "name")
        return set(rows)

    def drop_held(self, using: str, ids: Sequence[HeldId]) -> None:
        """Delete outbox rows."""
        OutboxRow.objects.using(using).filter(pk__in=ids).delete()
