"""Database connections that a thread keeps from one task to the next, or lends to others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final

from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("soc_tasks.engine")

#: Seconds for which a connection that was found good counts as such.
GOOD_FOR: Final = 1.0


class _Thread(threading.local):
    #: Whether it keeps its connections, and tidies them itself.
    keeps = False


_thread: Final = _Thread()


class HealthCheck:
    """Stands in for a connection's `is_usable`, which Django asks before a task's first query.

    Each answer costs a round trip to the server, which is half of what a short task costs: it is asked once a second,
    and wherever there is a doubt.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._ask = connection.is_usable
        self._good_until = 0.0

    def __call__(self) -> bool:
        """Tell whether the connection is usable."""
        now = time.monotonic()
        if now < self._good_until and not self._connection.errors_occurred:
            return True
        usable: bool = self._ask()
        self._good_until = now + GOOD_FOR if usable else 0.0
        return usable

    def doubt(self) -> None:
        """Have it asked the next time; from any thread."""
        self._good_until = 0.0


def keep_connections() -> list[BaseDatabaseWrapper]:
    """Let this thread keep its database connections between requests; Django would close them after each task.

    Returns:
        The connections.
    """
    kept: list[BaseDatabaseWrapper] = []
    for alias in connections:
        connection: Any = connections[alias]
        kept.append(connection)
        if connection.settings_dict.get("OPTIONS", {}).get("pool"):
            # A pool hands connections out for each request, and refuses to have them kept.
            continue
        # A copy: other threads of this process (runserver's) are not to keep theirs.
        connection.settings_dict = {**connection.settings_dict, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
        connection.is_usable = HealthCheck(connection)
    _thread.keeps = True
    return kept


def tidy() -> None:
    """Do for this thread's connections, between two tasks, what Django does before and after each request."""
    connection: Any
    for connection in connections.all(initialized_only=True):
        connection.queries_log.clear()
        try:
            connection.close_if_unusable_or_obsolete()
        except Exception:
            logger.exception("the connection to %s could not be put in order, and is closed", connection.alias)
            with suppress(Exception):
                connection.close()


def _stand_in(receiver: Callable[..., None]) -> Callable[..., None]:
    """Return what does the same in threads that do not keep their connections."""

    def receive(**given: Any) -> None:
        if not _thread.keeps:
            receiver(**given)

    return receive


#: What Django does about all connections of a thread before and after each of its requests, and what stands in for it.
_LOOKS: Final = tuple(
    (signal, receiver, _stand_in(receiver))
    for signal, receiver in (
        (request_started, reset_queries),
        (request_started, close_old_connections),
        (request_finished, close_old_connections),
    )
)


@contextmanager
def requests_spared() -> Iterator[None]:
    """Leave out Django's looks at connections, before and after each request, in threads that `tidy` theirs.

    There are three, and they take a seventh of what a call of a task that does nothing takes. For processes of workers
    alone. Nothing changes in other threads; and who disconnects Django's receivers for a while, as its test client
    does, disconnects these, and connects Django's again.
    """
    for signal, receiver, stand_in in _LOOKS:
        if signal.disconnect(receiver):
            # As which a signal knows the receiver.
            signal.connect(stand_in, dispatch_uid=id(receiver))
    try:
        yield
    finally:
        for signal, receiver, _ in _LOOKS:
            if signal.disconnect(dispatch_uid=id(receiver)):
                signal.connect(receiver)


def count_open(kept: list[BaseDatabaseWrapper]) -> int:
    """Return how many connections are open: Django closes one that had an error, after the task that had it."""
    return sum(connection.connection is not None for connection in kept)


def doubt(kept: list[BaseDatabaseWrapper]) -> None:
    """Have connections that another thread keeps be checked before they are used again."""
    for connection in kept:
        if isinstance(check := connection.is_usable, HealthCheck):
            check.doubt()


class Lent:
    """A thread's connection that other threads may use as theirs, one at a time, as a context manager.

    Args:
        alias: the database.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._connection: Any = connections[alias]
        self._connection.inc_thread_sharing()
        self._own: Any = None

    def __enter__(self) -> None:
        self._own = connections[self._alias]
        connections[self._alias] = self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connections[self._alias], self._own = self._own, None

    def end(self) -> None:
        """Let nobody else use it any more."""
        self._connection.dec_thread_sharing()
