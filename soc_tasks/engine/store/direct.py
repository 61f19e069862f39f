"""Transactions by SQLite's driver itself, for what a worker does thousands of times a second.

Django's own, with its cursors, take as long as all that SQLite does for one task (an exchange of one: 330 µs, so 195).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from django.db.backends.utils import CursorWrapper


class DirectCursor(CursorWrapper):
    """A cursor of the driver's that takes SQL as Django's does."""

    def execute(self, sql: Any, params: Any = ()) -> Any:
        """Run a statement."""
        return self.cursor.execute(_translate(sql), params)

    def executemany(self, sql: Any, param_list: Any) -> Any:
        """Run a statement with each of many lists of parameters."""
        return self.cursor.executemany(_translate(sql), param_list)


@lru_cache
def _translate(sql: str) -> str:
    translated = sql.replace("%s", "?")
    if "%" in translated:
        raise ValueError(f"only %s may stand in SQL for the driver: {sql}")
    return translated


def can_be_direct(connection: Any) -> bool:
    """Tell whether nobody would miss a transaction of Django's: who listens, or has one open."""
    return not (
        connection.execute_wrappers
        or connection.queries_logged
        or connection.in_atomic_block
        or not connection.get_autocommit()
    )


@contextmanager
def writing_directly(connection: Any, quiet: AbstractContextManager[None]) -> Iterator[DirectCursor]:
    """Hold the write lock in a transaction that Django does not know of; no `atomic()` may be entered in it.

    Args:
        connection: Django's, of SQLite, in autocommit mode.
        quiet: entered for as long as this thread has the lock between two statements. The commit is one: it waits for
            the disk, and gives the lock back before it wants the interpreter again. (Other workers get their turn
            later for that; in all two processes do more on FULL, and as much on NORMAL.)
    """
    connection.validate_thread_sharing()
    raw = connection.connection
    with connection.wrap_database_errors, ExitStack() as silence:
        silence.enter_context(quiet)
        raw.execute("BEGIN IMMEDIATE")
        cursor = raw.cursor()
        try:
            yield DirectCursor(cursor, connection)
            silence.close()
            raw.execute("COMMIT")
        except BaseException:
            _roll_back(connection, raw, cursor)
            raise


def _roll_back(connection: Any, raw: Any, cursor: Any) -> None:
    try:
        # A statement that was not read to its end would keep the transaction open.
        cursor.close()
        # SQLite may have done it already, as it does when the disk is full.
        if raw.in_transaction:
            raw.execute("ROLLBACK")
    except connection.Database.Error:
        # The error that led here is told; what is left of the transaction goes with the connection.
        connection.close()
