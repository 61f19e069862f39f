"""Taking the database from a thread that was given up: it cannot be stopped, but what it holds can.

A view that never answers keeps its transaction open, with all its locks: on SQLite everybody's writes wait for it, and
elsewhere even the note that it failed may, since an iteration's batch holds the row of its shard. So the transaction is
undone, as it is when a process dies, and whatever the view asks for later is refused.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("soc_tasks.engine")

#: Where a thread is while it waits for a driver.
_DRIVERS = f"{os.sep}django{os.sep}db{os.sep}"


def cut_off(thread: threading.Thread | None, connections: Iterable[BaseDatabaseWrapper]) -> None:
    """Undo the open transactions of a thread that was given up.

    Args:
        thread: the thread.
        connections: those that belong to it.
    """
    for connection in connections:
        raw: Any = connection.connection
        if raw is None or not connection.in_atomic_block:
            continue
        try:
            if connection.vendor == "sqlite":
                _refuse(raw, thread)
            else:
                _hang_up(raw)
        except Exception as error:
            logger.warning("a transaction on %s stays open until this process ends: %s", connection.alias, error)


def _hang_up(raw: Any) -> None:
    """End the line to a server, which undoes the transaction as soon as it sees that."""
    with socket.socket(fileno=os.dup(raw.fileno())) as line, suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _refuse(raw: sqlite3.Connection, thread: threading.Thread | None) -> None:
    """Undo the transaction of a SQLite connection, and let nothing be done by it any more."""
    # A statement that runs ends by that with an error, which leaves the atomic block in its own thread.
    raw.interrupt()
    frame = sys._current_frames().get(thread.ident or 0) if thread is not None else None
    if frame is None or _DRIVERS in frame.f_code.co_filename:
        return
    raw.set_authorizer(_allow_rollback)
    raw.rollback()


def _allow_rollback(action: int, first: str | None, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action == sqlite3.SQLITE_TRANSACTION and first == "ROLLBACK" else sqlite3.SQLITE_DENY
