"""Database errors that mean: somebody else was in the way, and nothing was done."""

from __future__ import annotations

from django.db import OperationalError

from soc_tasks.engine.store import conflicts
from soc_tasks.state.undone import UndoneError


def is_lock_error(error: BaseException | None) -> bool:
    """Tell a lock that somebody else holds from a database that is broken or gone.

    Args:
        error: what was raised; an error of ours may have that of the database as its cause.
    """
    if isinstance(error, UndoneError):
        return True
    if not isinstance(error, OperationalError):
        return error is not None and isinstance(error.__cause__, OperationalError) and is_lock_error(error.__cause__)
    if conflicts.read_code(error) != (None, None):
        return conflicts.is_conflict(error)
    return "locked" in str(error) or "busy" in str(error)


def was_undone(error: BaseException | None) -> bool:
    """Tell whether a database undid a whole transaction, so that others could go on: made again, it may succeed.

    Args:
        error: as for `is_lock_error`.
    """
    if isinstance(error, UndoneError):
        return True
    if not isinstance(error, OperationalError):
        return error is not None and isinstance(error.__cause__, OperationalError) and was_undone(error.__cause__)
    return conflicts.was_undone(error)
