"""What a dry run tells."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from django.db.transaction import TransactionManagementError

from soc_tasks.logic.envelopes import read_function
from soc_tasks.logic.finalizing import name_finalize
from soc_tasks.logic.rehearsals import Rehearsal
from soc_tasks.logic.slice_runs import describe
from soc_tasks.logic.statements import TransactionEndedError, Watch
from soc_tasks.values import Task

#: The most subjects that are told apart; the rest is counted under OTHERS.
MOST_SUBJECTS: Final = 100
OTHERS: Final = "(others)"
#: PostgreSQL's code for what cannot be done in a transaction.
_NO_TRANSACTION: Final = "25001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What ended a dry run.

    Args:
        batch: number of the batch, 1 for the first.
        shard: index of the shard.
        entities: what was worked on, for people.
        error: the exception, in one line.
        hint: what it may mean in a dry run, or "".
        traceback: where it came from.
    """

    batch: int
    shard: int
    entities: str
    error: str
    hint: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException, batch: int, shard: int, entities: str) -> Failure:
        """Return what an exception tells."""
        text = "".join(traceback.format_exception(error))
        return cls(
            batch=batch, shard=shard, entities=entities, error=describe(error), hint=_find_hint(error), traceback=text
        )


def _find_hint(error: BaseException) -> str:
    if isinstance(error, TransactionEndedError):
        return ""
    needs_none = "within a transaction" in str(error) or "inside a transaction" in str(error)
    state = getattr(error.__cause__, "sqlstate", None)
    if isinstance(error, TransactionManagementError) or state == _NO_TRANSACTION or needs_none:
        return (
            "In a dry run the view is called inside a transaction. If it works outside of one alone (set_autocommit(), "
            "commit(), VACUUM, CREATE INDEX CONCURRENTLY), it cannot be tried dry."
        )
    return ""


@dataclass(slots=True)
class Report:
    """What was seen.

    Args:
        name, path: what runs, and its URL.
        iteration: id of the iteration, where it is there already.
        atomic: whether batches commit with the iteration's place in the real run.
        shards: how many there are to do.
        total: rows in all, or None where nobody can count them.
        done_before: rows that were done already.
        rows, batches: what was tried.
        seconds: how long fetching and the view took.
        stopped_at: the limit that was reached, or "" where nothing is left, or something failed.
        queries, reads, most_queries: statements in all, those of them that fetched, the most of a batch.
        rows_written, writes: rows and statements, by alias, verb and table.
        mails, recipients, subjects: mails held back.
        tasks: tasks held back, by what they call and their queue.
        hooks: functions given to `transaction.on_commit`, not called.
        finalize: what would follow, and was not run.
        failures: what the view raised, one at most.
    """

    name: str = ""
    path: str = ""
    iteration: str = ""
    atomic: bool = False
    shards: int = 0
    total: int | None = None
    done_before: int = 0
    rows: int = 0
    batches: int = 0
    seconds: float = 0.0
    stopped_at: str = ""
    queries: int = 0
    reads: int = 0
    most_queries: int = 0
    rows_written: dict[tuple[str, str, str], int] = field(default_factory=dict)
    writes: dict[tuple[str, str, str], int] = field(default_factory=dict)
    mails: int = 0
    recipients: int = 0
    subjects: Counter[str] = field(default_factory=Counter)
    tasks: Counter[tuple[str, str]] = field(default_factory=Counter)
    hooks: Counter[str] = field(default_factory=Counter)
    finalize: str = ""
    failures: list[Failure] = field(default_factory=list)

    @property
    def left(self) -> int | None:
        """Return how many rows a real run has to do, or None where nobody can tell."""
        if not self.stopped_at and not self.failures:
            return self.rows
        return None if self.total is None else max(self.rows, self.total - self.done_before)

    @property
    def projected(self) -> float | None:
        """Return the seconds that a real run takes by what was seen, one batch after the other; None: unknown."""
        if not self.rows or self.left is None:
            return None
        return self.seconds / self.rows * self.left

    def note_batch(self, rehearsal: Rehearsal, watch: Watch, queries: int) -> None:
        """Add a batch."""
        if rehearsal.plan is not None:
            self.atomic = rehearsal.plan.atomic
            self.finalize = name_finalize(rehearsal.plan.finalize)
        self.batches += 1
        self.rows += rehearsal.done
        self.seconds += rehearsal.seconds
        self.reads += rehearsal.reads
        self.most_queries = max(self.most_queries, watch.queries - queries)
        self.queries = watch.queries
        self.rows_written, self.writes = dict(watch.rows), dict(watch.statements)

    def note_held_back(self, tasks: list[Task], mails: list[Any], hooks: list[str]) -> None:
        """Add what a batch did not get through."""
        for mail in mails:
            self.mails += 1
            self.recipients += len(mail.recipients())
            subject = str(mail.subject)
            known = subject in self.subjects or len(self.subjects) < MOST_SUBJECTS
            self.subjects[subject if known else OTHERS] += 1
        for task in tasks:
            self.tasks[read_function(task.body) or task.path.partition("?")[0], task.queue] += 1
        self.hooks.update(hooks)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        each = self.projected
        return {
            "task": {"name": self.name, "path": self.path, "iteration": self.iteration or None},
            "atomic": self.atomic,
            "shards": self.shards,
            "total": self.total,
            "done_before": self.done_before,
            "rows": self.rows,
            "batches": self.batches,
            "seconds": round(self.seconds, 6),
            "stopped_at": self.stopped_at or None,
            "projected": None
            if each is None
            else {"rows": self.left, "seconds": round(each, 3), "seconds_in_shards": round(each / self.shards, 3)},
            "queries": {"total": self.queries, "to_fetch": self.reads, "most_in_a_batch": self.most_queries},
            "writes": [
                {
                    "database": alias,
                    "verb": verb,
                    "table": table,
                    "rows": self.rows_written.get(key, 0),
                    "statements": n,
                }
                for key, n in sorted(self.writes.items())
                for alias, verb, table in [key]
            ],
            "mails": {"total": self.mails, "recipients": self.recipients, "subjects": dict(self.subjects)},
            "tasks": [{"calls": what, "queue": queue, "count": n} for (what, queue), n in sorted(self.tasks.items())],
            "on_commit": dict(self.hooks),
            "finalize": self.finalize or None,
            "failures": [
                {name: getattr(failure, name) for name in Failure.__dataclass_fields__} for failure in self.failures
            ],
        }
