"""Database errors that mean: somebody else was in the way, and nothing was done."""

from __future__ import annotations

from typing import Final

from django.db import OperationalError

#: What PostgreSQL (appendix A) calls deadlock_detected and serialization_failure, and lock_not_available.
_UNDONE_STATES: Final = frozenset({"40P01", "40001"})
_LOCK_STATE: Final = "55P03"
#: What MySQL and MariaDB call ER_LOCK_DEADLOCK; and ER_LOCK_WAIT_TIMEOUT, ER_LOCK_NOWAIT.
_UNDONE_NUMBER: Final = 1213
_LOCK_NUMBERS: Final = frozenset({1205, 3572})


def is_lock_error(error: BaseException | None) -> bool:
    """Tell a lock that somebody else holds from a database that is broken or gone.

    Args:
        error: what was raised; an error of ours may have that of the database as its cause.
    """
    if not isinstance(error, OperationalError):
        return error is not None and isinstance(error.__cause__, OperationalError) and is_lock_error(error.__cause__)
    state, number = _read_code(error)
    if state is not None or number is not None:
        return state == _LOCK_STATE or number in _LOCK_NUMBERS or was_undone(error)
    return "locked" in str(error) or "busy" in str(error)


def was_undone(error: BaseException | None) -> bool:
    """Tell whether a database undid a whole transaction, so that others could go on: made again, it may succeed.

    Args:
        error: as for `is_lock_error`.
    """
    if not isinstance(error, OperationalError):
        return error is not None and isinstance(error.__cause__, OperationalError) and was_undone(error.__cause__)
    state, number = _read_code(error)
    return state in _UNDONE_STATES or number == _UNDONE_NUMBER


def _read_code(error: OperationalError) -> tuple[str | None, int | None]:
    # psycopg names the state `sqlstate`, psycopg2 `pgcode`; MySQL's number is the first argument.
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    return state, number
