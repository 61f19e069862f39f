"""The store on MySQL and MariaDB: a claim reads rows under lock, then marks them; there is no UPDATE … RETURNING."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from django.db import DatabaseError, connections
from django.db.backends.utils import CursorWrapper

from soc_tasks.engine.rates import Share
from soc_tasks.engine.records import MinuteRecord
from soc_tasks.engine.store.locking import DUE, LockingStore
from soc_tasks.engine.store.rows import COLUMNS, TASKS, WORKERS, Leased, State, by_due, write_insert

# A step from one queue that has waiting tasks to the next: by the ends of the index, however many tasks wait. In one
# statement, as other databases do it, MariaDB reads all of them.
_FIRST = f"SELECT min(queue) FROM {TASKS} WHERE state = {State.WAITING:d}"
_STEP = (
    f"SELECT (SELECT min(due) FROM {TASKS} WHERE state = {State.WAITING:d} AND queue = %s), ({_FIRST} AND queue > %s)"
)
# A worker that is being struck off waits for this claim, and takes over what it leased.
_LOCK_WORKER = f"SELECT id FROM {WORKERS} WHERE id = %s LOCK IN SHARE MODE"
_CLAIM = f"SELECT {COLUMNS} {DUE}"

#: Error reference: ER_NO_SUCH_TABLE.
_NO_SUCH_TABLE: Final = 1146


class MysqlStore(LockingStore):
    """Keeps tasks in a MySQL or MariaDB database."""

    # ON DUPLICATE KEY UPDATE would count rows that were there as rows that were found.
    insert_new = ("INSERT IGNORE", "")
    insert_new_queue = ("INSERT IGNORE", "")
    add_up = " ON DUPLICATE KEY UPDATE " + ", ".join(
        f"{name} = {name} + VALUES({name})" for name in MinuteRecord._fields[2:]
    )

    # The optimizer takes the index of another state where all but few tasks wait.
    waiting = f"{TASKS} FORCE INDEX (soc_tasks_engine_waiting)"

    def survey(self, cursor: CursorWrapper) -> list[Sequence[Any]]:
        """Return each queue that has waiting tasks, when the first of them is due, and what is kept of the queue."""
        found: dict[str, int | None] = {}
        name = self.fetch(cursor, _FIRST, ())[0][0]
        while name is not None:
            ((due, following),) = self.fetch(cursor, _STEP, (name, name))
            found[name] = due
            name = following
        kept = self.read_queues(cursor, found)
        return [(name, due, *kept.get(name, ())) for name, due in found.items()]

    def read_time(self) -> int:
        """Return the server's time."""
        # SYSDATE() is the time at which it is asked; UTC_TIMESTAMP, in no time zone, that of the statement.
        rows = self.select("SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))")
        return int(rows[0][0])

    def read_committed(self, cursor: CursorWrapper | None) -> None:
        """Set the level of the next transaction, where it is not the connection's."""
        connection = connections[self.alias]
        if cursor is not None:
            return
        connection.ensure_connection()
        if getattr(connection, "isolation_level", None) != "read committed":
            with connection.cursor() as setting:
                setting.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def claim(self, cursor: CursorWrapper, worker: int, shares: Sequence[Share], limit: int) -> list[Leased]:
        """Lease up to `limit` tasks."""
        if not self.fetch(cursor, _LOCK_WORKER, (worker,)):
            return []
        parts = [
            [Leased._make(row) for row in self.fetch(cursor, _CLAIM, (share.queue, share.until, most))]
            for share, most in zip(shares, self.portions(shares, limit), strict=True)
        ]
        turns = [leased for turn in zip_longest(*parts) for leased in turn if leased is not None]
        # A queue may stand there twice: what is to run at once, and what is due.
        chosen = list({leased.id: leased for leased in turns}.values())[:limit]
        if chosen:
            marks = ", ".join(["%s"] * len(chosen))
            cursor.execute(
                f"UPDATE {TASKS} SET state = {State.RUNNING:d}, owner = %s WHERE id IN ({marks})",
                (worker, *(leased.id for leased in chosen)),
            )
        return sorted((leased._replace(owner=worker) for leased in chosen), key=by_due)

    def insert_worker(self, cursor: CursorWrapper, values: Mapping[str, Any]) -> int:
        """Insert a worker's row."""
        cursor.execute(write_insert(WORKERS, values), tuple(values.values()))
        return int(cursor.lastrowid)

    def read_change_mark(self) -> object:
        """Return None: what changed cannot be told more cheaply than what is due."""
        return None

    def find_risks(self) -> list[str]:
        """Return what the server is told to leave out when it commits, and what breaks its replicas."""
        ((flush, has_log, form),) = self.select(
            "SELECT @@GLOBAL.innodb_flush_log_at_trx_commit, @@GLOBAL.log_bin, @@SESSION.binlog_format"
        )
        risks = []
        if flush != 1:
            risks.append(
                f"The server runs with innodb_flush_log_at_trx_commit = {flush}: what it has committed, "
                "tasks included, may be lost when it crashes."
            )
        if has_log and form == "STATEMENT":
            risks.append(
                "The server writes its binary log by statement: set binlog_format = ROW, claims skip locked rows."
            )
        return risks

    def missing_table(self, error: DatabaseError) -> bool:
        """Tell whether an error says that a table is missing."""
        return bool(error.args) and error.args[0] == _NO_SUCH_TABLE
