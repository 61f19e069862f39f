"""`on_error="skip"`: a failing batch is halved until one entity stands alone, which is given up and kept in a ledger.

What is written down after each failed try is how many entities the next one takes, so that a delivery that dies goes on
from there. An entity that is given up and the cursor behind it commit together. After it the size doubles back.

Not every failure is an entity's: what the database or a queue could not do, and what a view asks to be tried again, is
tried again.
"""

from __future__ import annotations

import logging
import math
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.db import Error, InterfaceError, OperationalError
from django.db.transaction import TransactionManagementError

from soc_tasks.engine.store import conflicts
from soc_tasks.errors import BackendUnavailableError, DeadlineExceededError, FatalTaskError, SingularTaskFailure
from soc_tasks.logic.found_items import name_entity
from soc_tasks.logic.full_logic import MAX_BATCH_SIZE
from soc_tasks.state import get_state
from soc_tasks.state.base import BusyError, IterationRecord
from soc_tasks.values import FailedItem

if TYPE_CHECKING:
    from soc_tasks.logic.plans import Plan
    from soc_tasks.logic.slice_runs import SliceRun, Step
    from soc_tasks.state.base import ShardRecord

logger = logging.getLogger("soc_tasks")

#: So many entities count as worked off, at least, where a budget is a share of them.
FEWEST: Final = 100
#: Characters that are kept of an error and of a traceback.
MOST_ERROR, MOST_TRACEBACK = 2000, 20_000
#: MySQL's and MariaDB's OperationalErrors that are about a value: ER_TRUNCATED_WRONG_VALUE, ER_WARN_DATA_OUT_OF_RANGE,
#: WARN_DATA_TRUNCATED, ER_TRUNCATED_WRONG_VALUE_FOR_FIELD, ER_DATA_TOO_LONG.
_VALUE_NUMBERS: Final = frozenset({1264, 1265, 1292, 1366, 1406})
#: PostgreSQL, appendix A: in_failed_sql_transaction.
_SPOILT_STATE: Final = "25P02"


class ErrorBudgetExceededError(FatalTaskError):
    """More entities failed than the error budget allows."""


def check_on_error(on_error: Any, error_budget: Any, prefix: str = "") -> None:
    """Refuse options that mean nothing.

    Args:
        on_error, error_budget: the options.
        prefix: what stands before their names.

    Raises:
        ValueError: `on_error` is neither "retry" nor "skip"; `error_budget` is no count and no share, or for nothing.
    """
    if on_error not in ("retry", "skip"):
        raise ValueError(
            f'{prefix}on_error must be "retry" (a failing batch is tried again) or "skip" (a failing entity is given '
            f"up and kept in the ledger), not {on_error!r:.100}."
        )
    if error_budget is None:
        return
    is_count = type(error_budget) is int and error_budget >= 0
    is_share = type(error_budget) is float and math.isfinite(error_budget) and 0 < error_budget < 1
    if not (is_count or is_share):
        raise ValueError(
            f"{prefix}error_budget must be how many entities may fail (a whole number, 0 or more), or what share of "
            f"them (a float between 0 and 1), not {error_budget!r:.100}."
        )
    if on_error != "skip":
        raise ValueError(
            f'{prefix}error_budget counts the entities that {prefix}on_error="skip" gives up; give both, or neither.'
        )


def is_nobodys(error: BaseException | None) -> bool:
    """Tell whether an error is no entity's fault: a database or a queue failed, or the time is up.

    Args:
        error: what was raised; what was its cause counts as well.
    """
    while error is not None:
        if isinstance(error, (InterfaceError, BackendUnavailableError, BusyError, DeadlineExceededError)):
            return True
        if isinstance(error, OperationalError) and conflicts.read_code(error)[1] not in _VALUE_NUMBERS:
            return True
        error = error.__cause__
    return False


def was_spoilt(error: Exception) -> bool:
    """Tell whether a view left a transaction that can only be rolled back: it caught a database error inside it."""
    if isinstance(error, TransactionManagementError):
        return True
    return isinstance(error, Error) and conflicts.read_code(error)[0] == _SPOILT_STATE


@dataclass(slots=True)
class Failure:
    """The last try of a slice, and how it failed.

    Args:
        step: what was tried.
        cursor, end: where the shard stood then, and its end.
        error: what was raised, or None as yet.
        culprit: which entity raised it, where that is known.
    """

    step: Step
    cursor: str | None
    end: str | None
    error: Exception | None = None
    culprit: int | None = None


class Skipper:
    """Judges the failures of a slice, and gives up what fails alone.

    Args:
        run: the slice.
    """

    def __init__(self, run: SliceRun) -> None:
        self.run = run
        self.last: Failure | None = None
        #: Of so many entities from the cursor on one is known to fail.
        self.window = 0

    def note_try(self, step: Step, shard: ShardRecord) -> None:
        """Remember what is about to be tried."""
        self.last = Failure(step, shard.cursor, shard.end)

    def note_failure(self, error: Exception, culprit: int | None = None) -> None:
        """Remember how it failed."""
        assert self.last is not None  # it was tried
        self.last.error, self.last.culprit = error, culprit

    def may_skip(self, error: Exception) -> bool:
        """Tell whether a failure is that of an entity, to be found and given up."""
        last = self.last
        if self.run.plan.on_error != "skip" or last is None or last.step.finalizes or not last.step.entities:
            return False
        if error is not last.error:
            if last.error is not None or not self.run.plan.atomic or not was_spoilt(error):
                return False
            last.error = error
        if isinstance(error, SingularTaskFailure) or is_nobodys(error):
            return False
        return self.run.is_items(error)

    def narrow(self, shard: ShardRecord, entities: int) -> None:
        """After a batch that is done: choose how many entities the next one has, if it is not a whole one."""
        if shard.halved is None:
            return
        self.window = max(0, self.window - entities)
        if self.window:
            shard.halved = max(1, self.window // 2)
        else:
            shard.halved = 2 * shard.halved if 2 * shard.halved < self._whole_size() else None

    def _whole_size(self) -> int:
        source, pace = self.run.source, self.run.pace
        if pace is not None:
            return pace.size
        size = source and (source.batch_size or getattr(source.logic, "batch_size", None))
        return size if isinstance(size, int) else MAX_BATCH_SIZE

    def pass_over(self, shard: ShardRecord, iteration: IterationRecord) -> bool:
        """Have a smaller batch tried next, or give up the one entity, in the open transaction.

        Returns:
            Whether the slice goes on.

        Raises:
            ErrorBudgetExceededError: it is one too many.
        """
        run, last = self.run, self.last
        assert last is not None  # `may_skip` looked
        assert last.error is not None
        assert run.source is not None
        entities = last.step.entities
        culprit = 0 if len(entities) == 1 else last.culprit
        if shard.end != last.end or (run.plan.atomic and shard.cursor != last.cursor):
            # A copy of this delivery came in between, or another shard has taken a part over.
            return run.go_on(shard, iteration)
        if culprit is None or (run.plan.atomic and culprit):
            # What is before a known culprit is done first, then that is the first.
            self.window = 0 if culprit else len(entities)
            shard.halved = culprit or len(entities) // 2
            return run.go_on(shard, iteration)
        # First, as with all that follows it is the iteration for which slices of several shards wait.
        iteration = run.state.get_iteration(iteration.id, lock=True) or iteration
        if iteration.status != "running":
            return run.go_on(shard, iteration)
        entity = entities[culprit]
        check_budget(run.plan, iteration, entity, last.error)
        next_key = run.find_next_key(last.step, culprit)
        key = run.source.get_item_key(entity, last.step.key, next_key)
        run.source.give_up(entity, culprit, make_item(shard, key, entity, last.error))
        self.window = 0
        step = type(last.step)([], next_key, context=shard.context, failed=1)
        logger.warning(
            "%s of iteration %s (%s) failed, and is kept in the ledger of failed items",
            describe_entity(entity),
            iteration.id,
            iteration.name,
            exc_info=last.error,
        )
        run.progressed = True
        return run.advance(shard, iteration, step)


def check_budget(plan: Plan, iteration: IterationRecord, entity: Any, error: Exception) -> None:
    """Refuse to give up one entity more than the budget of an iteration, which is locked, allows.

    A share is one of what was worked off so far, and that counts as 100 at least, or as all where there are fewer. What
    was before the last `resume()` after a failure does not count.

    Raises:
        ErrorBudgetExceededError: it is one too many.
    """
    budget = plan.error_budget
    if budget is None:
        return
    done, failed = get_state().sum_shards(iteration.id)
    before = iteration.options.get("forgiven", {"done": 0, "failed": 0})
    failed = failed - before["failed"] + 1
    worked = done - before["done"] + failed
    fewest = FEWEST if iteration.total is None else min(FEWEST, iteration.total)
    allowed = budget if isinstance(budget, int) else budget * max(worked, fewest)
    if failed <= allowed:
        return
    since = " since it was resumed" if "forgiven" in iteration.options else ""
    raise ErrorBudgetExceededError(
        f"{failed:,} of {worked:,} entities failed{since}, more than error_budget={budget!r} allows. The last one, "
        f"{describe_entity(entity)}, will be tried again: {type(error).__name__}: {error}"[:MOST_ERROR]
        + f". Correct the cause; `tasks iterations failed {iteration.id}` lists the others, and "
        f"`tasks iterations resume {iteration.id}` goes on, with a new budget."
    ) from error


def make_item(shard: ShardRecord, key: str, entity: Any, error: Exception) -> FailedItem:
    """Return an entity that failed as it is kept."""
    return FailedItem(
        iteration=shard.iteration,
        shard=shard.index,
        key=key,
        entity=describe_entity(entity),
        error_type=f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        error=str(error)[:MOST_ERROR],
        traceback="".join(traceback.format_exception(error))[-MOST_TRACEBACK:],
    )


def describe_entity(entity: Any) -> str:
    """Return what an entity is, for people: `app.Model pk`, or `Kind id`, never what else it holds."""
    return name_entity(entity) or repr(entity)[:255]
