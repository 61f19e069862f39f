"""Checkpoints of SQLite's write-ahead log that cannot corrupt it.

Until 3.51.3, SQLite may lose commits, and corrupt the database, if one connection checkpoints while another writes the
first commit after a checkpoint that was complete, and so begins the log anew (https://sqlite.org/wal.html#walresetbug).
Every connection checkpoints by itself, now and then, as it commits. So on those versions a worker's connections do not;
one thread does it for them, while it holds the write lock: nobody can commit then, and nobody can checkpoint likewise.

That is done too where the settings have switched SQLite's own checkpoints off: the log must not grow for ever.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from soc_tasks.engine.store.base import Store

logger = logging.getLogger("soc_tasks.engine")

Version = tuple[int, ...]

#: The first versions with the bug and without, and what was mended in between.
_BROKEN, _MENDED = (3, 7, 0), (3, 51, 3)
_BACKPORTS: Final[dict[Version, Version]] = {(3, 44): (3, 44, 6), (3, 50): (3, 50, 7)}

#: Bytes of the log above which it is copied to the database, and to which it is cut when it begins anew. SQLite's own
#: limit is 1,000 pages, which is the same.
LIMIT: Final = 4 * 1024 * 1024
#: Bytes above which workers that do not lead stop to rely on the one that does, and for how many seconds they wait.
EMERGENCY, PATIENCE = 16 * LIMIT, 5.0
#: Seconds between looks at the size of the log, and between those, and checkpoints, while it does not grow.
LOOK, PAUSE = 0.2, 1.0


def is_affected(version: Version = sqlite3.sqlite_version_info) -> bool:
    """Tell whether a version of SQLite has the bug."""
    mended = _BACKPORTS.get(version[:2], _MENDED)
    return _BROKEN <= version < mended


class Checkpoints(threading.Thread):
    """Keeps the log of a database small.

    Args:
        store: the database; its write lock is taken as for any other transaction.
        leads: tells whether this process is the one to do it.
        version: of SQLite.
    """

    def __init__(self, store: Any, leads: Callable[[], bool], version: Version = sqlite3.sqlite_version_info) -> None:
        super().__init__(name="soc_tasks-checkpoints", daemon=True)
        self._store = store
        self._leads = leads
        self._affected = is_affected(version)
        self._ended = threading.Event()
        self._due = Due()
        #: The second connection, on which the checkpoint runs.
        self._other: Any = None
        if self._affected:
            connection_created.connect(self._prepare, weak=False, dispatch_uid=self)

    def end(self) -> None:
        """End the thread."""
        self._ended.set()
        connection_created.disconnect(dispatch_uid=self)

    def run(self) -> None:
        """Look at the log, and checkpoint when it has grown."""
        try:
            path = self._find_log()
            while path is not None and not self._ended.wait(self._due.rest):
                if not self._due.look(path, time.monotonic(), leads=self._leads()):
                    continue
                try:
                    self._due.note(path, time.monotonic(), complete=self._checkpoint())
                except Error as error:
                    # The write lock was not to be had, say.
                    logger.warning("the log of the database %s is not cut, trying again: %s", self._store.alias, error)
                    self._due.note(path, time.monotonic(), complete=False)
        finally:
            if self._other is not None:
                self._other.close()
            connections.close_all()

    def _find_log(self) -> str | None:
        """Return the path of the log, or None where there is nothing to do."""
        while not self._ended.is_set():
            try:
                with connections[self._store.alias].cursor() as cursor:
                    automatic = cursor.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
                    files = {name: file for _, name, file in cursor.execute("PRAGMA database_list").fetchall()}
            except Error:
                self._ended.wait(PAUSE)
                continue
            needed = files["main"] and (self._affected or not automatic)
            return f"{files['main']}-wal" if needed else None
        return None

    def _prepare(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        """Keep a connection of this process from checkpoints, and have it cut the log when it begins that anew."""
        if connection.alias != self._store.alias or connection.connection is None:
            return
        raw: sqlite3.Connection = connection.connection
        raw.execute("PRAGMA wal_autocheckpoint=0")
        if raw.execute("PRAGMA journal_size_limit").fetchone()[0] < 0:
            raw.execute(f"PRAGMA journal_size_limit={LIMIT}")

    def _checkpoint(self) -> bool:
        """Copy the log to the database while nobody can write; tell whether all of it was."""
        if self._other is None:
            self._other = connections[self._store.alias].copy()
        self._other.ensure_connection()
        # Nothing is written in this transaction. It is there for its lock.
        with self._store.writing(), self._other.wrap_database_errors:
            busy, frames, copied = self._other.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and frames == copied


class Due:
    """Tells by the size of the log when a checkpoint is due; which of its frames are old, its size does not tell."""

    def __init__(self) -> None:
        self._stamp: tuple[int, int] | None = None
        self._seen: tuple[int, int] | None = None
        #: Seconds until the next look.
        self.rest = LOOK
        self._lowest = 0
        self._next_at = 0.0
        self._since: float | None = None

    def look(self, path: str, now: float, *, leads: bool) -> bool:
        """Tell whether to checkpoint now.

        Args:
            path: the log.
            now: monotonic time.
            leads: whether it is this process's turn as long as all is well.
        """
        stamp = _measure(path)
        self.rest, self._seen = PAUSE if stamp == self._seen else LOOK, stamp
        size = stamp[0]
        self._lowest = min(self._lowest, size)
        if size <= LIMIT or stamp == self._stamp or (now < self._next_at and size <= self._lowest + LIMIT):
            self._since = None
            return False
        if leads:
            return True
        self._since = now if self._since is None else self._since
        return size > EMERGENCY and now - self._since > PATIENCE

    def note(self, path: str, now: float, *, complete: bool) -> None:
        """Note that a checkpoint was made, or tried."""
        self._stamp = _measure(path) if complete else None
        self._lowest = _measure(path)[0]
        self._next_at = now + PAUSE
        self._since = None


def _measure(path: str) -> tuple[int, int]:
    # By its name alone: to open and close a file of SQLite's would drop the locks that this process has on it.
    with suppress(OSError):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    return 0, 0


def keep_checkpoints(store: Store, leads: Callable[[], bool]) -> Checkpoints | None:
    """Return the thread that keeps the log of a store's database small, not yet started; None: it has no such log."""
    if connections[store.alias].vendor != "sqlite" or store.is_private:
        return None
    return Checkpoints(store, leads)
