"""Transactions that a database chose as the victim of a deadlock, or could not serialize: run again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from django.db import OperationalError, connections

P = ParamSpec("P")
R = TypeVar("R")

#: PostgreSQL, appendix A: deadlock_detected, serialization_failure; MySQL's and MariaDB's reference: ER_LOCK_DEADLOCK,
#: ER_CHECKREAD (what innodb_snapshot_isolation has refused).
_UNDONE_STATES: Final = frozenset({"40P01", "40001"})
_UNDONE_NUMBERS: Final = frozenset({1213, 1020})
#: Likewise lock_not_available; ER_LOCK_WAIT_TIMEOUT, ER_LOCK_NOWAIT.
_LOCK_STATE: Final = "55P03"
_LOCK_NUMBERS: Final = frozenset({1205, 3572})

#: How often a transaction is tried.
TRIES: Final = 6
#: Seconds before the second try, at most; doubled each time. By chance, or the same two would meet again.
FIRST_PAUSE: Final = 0.01


def read_code(error: BaseException) -> tuple[str | None, int | None]:
    """Return the state (PostgreSQL) and the number (MySQL, MariaDB) of a database error, as far as it has them."""
    cause = error.__cause__
    # psycopg names the state `sqlstate`, psycopg2 `pgcode`; MySQL's number is the first argument.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    given = error.args or getattr(cause, "args", ())
    return state, given[0] if given and isinstance(given[0], int) else None


def was_undone(error: BaseException) -> bool:
    """Tell whether a database undid a whole transaction, so that others could go on: made again, it may succeed."""
    state, number = read_code(error)
    return state in _UNDONE_STATES or number in _UNDONE_NUMBERS


def is_lock_missed(error: BaseException) -> bool:
    """Tell whether a database error says that somebody else holds a lock."""
    state, number = read_code(error)
    return state == _LOCK_STATE or number in _LOCK_NUMBERS


def is_conflict(error: BaseException) -> bool:
    """Tell whether a database error means: nothing was done, try again."""
    return was_undone(error) or is_lock_missed(error)


def retried(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Have a store's method run again after a conflict, unless it is part of its caller's transaction.

    Args:
        method: does all that it does in transactions of its own.
    """

    @wraps(method)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        pause = FIRST_PAUSE
        for _ in range(TRIES - 1):
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                # What a store raises in place of a database error has that as its cause.
                origin: Any = error if isinstance(error, OperationalError) else error.__cause__
                if origin is None or not is_conflict(origin) or connections[self.alias].in_atomic_block:
                    raise
            time.sleep(pause * random.random())
            pause *= 2
        return method(self, *args, **kwargs)

    return run
