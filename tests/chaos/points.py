"""Numbered points in the life of a process: before and after each statement and each commit of its connections.

They are put around Django's database layer from outside; what runs does not know of them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE)\b", re.IGNORECASE)


class Points:
    """Counts the points of this process, and acts at one of them.

    Args:
        wanted: told a point's number and name; whether to act there.
        act: what to do, once.
        commits_only: whether only those points count between which the database differs: commits, and statements
            that write without a transaction.
    """

    def __init__(self, wanted: Callable[[int, str], bool], act: Callable[[str], None], *, commits_only: bool = False):
        self.count = 0
        self._wanted = wanted
        self._act: Callable[[str], None] | None = act
        self._commits_only = commits_only
        self._lock = threading.Lock()

    def install(self) -> None:
        """Watch every connection that this process opens from now on."""
        connection_created.connect(self._watch, weak=False)
        commit = BaseDatabaseWrapper._commit

        def watched(connection):
            # Outside a transaction it does nothing.
            if connection.connection is None:
                return commit(connection)
            self._pass("before COMMIT")
            result = commit(connection)
            self._pass("after COMMIT")
            return result

        BaseDatabaseWrapper._commit = watched

    def _watch(self, connection, **_):
        if self._around not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._around)

    def _around(self, execute, sql, params, many, context):
        name = " ".join(str(sql).split())[:80]
        alone = not context["connection"].in_atomic_block
        counts = not self._commits_only or (alone and _WRITES.match(name))
        if counts:
            self._pass(f"before {name}")
        result = execute(sql, params, many, context)
        if counts:
            self._pass(f"after {name}")
        return result

    def _pass(self, name):
        with self._lock:
            self.count += 1
            act = self._act if self._act is not None and self._wanted(self.count, name) else None
            if act is not None:
                self._act = None
        if act is not None:
            act(name)
