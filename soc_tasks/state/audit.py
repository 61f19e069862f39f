"""Who did what in the console: kept on `DATABASE`, wherever the rest of the state lives, and never swept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from soc_tasks.conf import get_settings
from soc_tasks.models import AuditRow
from soc_tasks.state.kept_tasks import spell_out


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that somebody did, or tried to do.

    Args:
        id: its number; later ones are higher.
        created: when.
        user_id: key of the user.
        user: what they were called then.
        action: what they did.
        target: to what.
        outcome: what came of it; "" while it is under way, or where it was cut off.
    """

    id: int
    created: datetime
    user_id: str
    user: str
    action: str
    target: str
    outcome: str


def audit_alias() -> str:
    """Return the database that holds the log."""
    return get_settings().database


def begin_entry(user_id: str, user: str, action: str, target: str, outcome: str = "") -> int:
    """Note what somebody is about to do, or has done; return the entry's number.

    Args:
        user_id, user: who.
        action, target: what, to what.
        outcome: what came of it, where that is known.
    """
    row = AuditRow(
        created=datetime.now(UTC),
        user_id=user_id[:255],
        user=user[:255],
        action=action[:64],
        target=spell_out(target),
        outcome=spell_out(outcome),
    )
    row.save(using=audit_alias(), force_insert=True)
    return row.pk


def end_entry(entry_id: int, outcome: str) -> None:
    """Note what came of it."""
    AuditRow.objects.using(audit_alias()).filter(pk=entry_id).update(outcome=spell_out(outcome))


def list_entries(*, limit: int = 100, before: int | None = None) -> Sequence[AuditEntry]:
    """Return the newest entries, or those before one of them.

    Args:
        limit: how many at most.
        before: number of an entry.
    """
    rows = AuditRow.objects.using(audit_alias()).order_by("-pk")
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return [
        AuditEntry(
            id=row.pk,
            created=row.created,
            user_id=row.user_id,
            user=row.user,
            action=row.action,
            target=row.target,
            outcome=row.outcome,
        )
        for row in rows[:limit]
    ]
