"""The fence: what makes a batch count once, whoever delivers it how often.

One delivery runs batch after batch until its time is used up; only its last transaction raises `step` and writes the
next task. So a delivery of the current step resumes at the stored cursor, an older one is dropped, a newer one comes
again, and one of another epoch (the iteration was resumed since) is dropped.

Atomic: the shard's row is locked, and batch, cursor and next task commit in one transaction.
Not atomic: one transaction leases the shard, the view runs outside any, the next transaction advances if the lease
still stands. The owner of the lease alone decides the cursor.
"""

from __future__ import annotations

from collections.abc import Callable

from soc_tasks.logic.atomic_slices import AtomicRun
from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.leased_slices import LeasedRun
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.slice_runs import EarlySliceError, Finalize, Process, describe, first_backoff, hand_over
from soc_tasks.meta import SliceMessage
from soc_tasks.state import get_state
from soc_tasks.state.base import ShardBusyError, is_at


class HandedOverError(Exception):
    """A batch failed after others had succeeded: the next slice goes on from there."""


def run_slice(
    message: SliceMessage,
    plan: Plan,
    process: Process,
    budget: Budget,
    is_fatal: Callable[[Exception], bool],
    finalize: Finalize | None = None,
    is_items: Callable[[Exception], bool] = lambda error: True,
) -> bool:
    """Run batches of a shard until the time is used up or nothing is left; or `finalize`, behind the same fence.

    Args:
        message: which slice this delivery is.
        plan: what to iterate over.
        process: runs the view on a batch.
        budget: when to hand over.
        is_fatal: tells exceptions of the view that end the shard.
        finalize: runs what comes after all shards, where it is a function.
        is_items: tells exceptions of the view, others than fatal ones, that may be an entity's own (`on_error`).

    Returns:
        Whether it did anything; False for a delivery that is out of date.

    Raises:
        ShardBusyError: the shard is locked or leased elsewhere, the lease was lost, or the database undid the
            transaction.
        EarlySliceError: the shard is not yet at this step.
        HandedOverError: a batch failed after progress; its cause is the view's exception.
        Exception: what the view raised, where the slice made no progress.
    """
    run = (AtomicRun if plan.atomic else LeasedRun)(message, plan, process, budget, finalize)
    run.is_items = lambda error: not is_fatal(error) and is_items(error)
    try:
        return run.run()
    except (ShardBusyError, EarlySliceError):
        raise
    except Exception as error:
        if is_fatal(error):
            # Its dead letter fails no shard that somebody holds.
            run.give_back()
            raise
        if run.was_in_the_way(error):
            # It was no attempt, and the next one is to come soon, not when the lease has ended.
            run.give_back()
            raise ShardBusyError(describe(error)) from error
        if run.progressed and run.hand_over_after(error):
            raise HandedOverError from error
        run.note_failure(error)
        raise


def take_up(message: SliceMessage) -> bool:
    """Hand a slice whose attempts were used up over to the next one, if it got on in them.

    Its processes were killed, and that is no fault of its own: what fails for good comes to a batch with which no
    attempt gets on.

    Returns:
        False where it did not get on, or is out of date.

    Raises:
        ShardBusyError: another delivery has the shard.
    """
    state = get_state()

    def take() -> bool:
        with state.locked_shard(message.iteration, message.shard) as shard:
            if shard is None or not is_at(shard, message):
                return False
            state.check_unheld(shard, message)
            iteration = state.get_iteration(message.iteration)
            if not shard.advanced or iteration is None or iteration.status != "running":
                return False
            hand_over(shard, iteration, countdown=first_backoff(iteration))
            state.save_shard(shard)
        return True

    return state.run(take)
