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

#: PostgreSQL, appendix A: serialization_failure, deadlock_detected.
_STATES: Final = frozenset({"40001", "40P01"})
#: MySQL's and MariaDB's error reference: ER_LOCK_DEADLOCK, ER_LOCK_WAIT_TIMEOUT.
_NUMBERS: Final = frozenset({1213, 1205})

#: How often a transaction is tried.
TRIES: Final = 6
#: Seconds before the second try, at most; doubled each time. By chance, or the same two would meet again.
FIRST_PAUSE: Final = 0.01


def is_conflict(error: BaseException) -> bool:
    """Tell whether a database error means: nothing was done, try again."""
    cause = error.__cause__
    if cause is None:
        return False
    # psycopg names the state `sqlstate`, psycopg2 `pgcode`; MySQL's number is the first argument.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state in _STATES or (bool(cause.args) and cause.args[0] in _NUMBERS)


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
