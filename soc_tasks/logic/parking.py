"""How many shards of an iteration work at a time: those above the limit park between two batches.

A parked shard has no task. Whoever makes room (a shard that ends, a limit that is raised) wakes the next one. The
counts change only under the lock of the iteration's row, which is taken behind the shard's own, as everywhere; the
shard that is woken is taken without waiting, so that no two wait for each other.

No wake is lost. Where somebody holds the row of a parked shard, it is passed over; but who does that is a late
delivery, which then looks by itself whether there is room, or `resume`, which sets all of them running.
"""

from __future__ import annotations

from soc_tasks.logic.runs import enqueue_slice
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord


def is_crowded(iteration: IterationRecord) -> bool:
    """Tell whether more shards are at work than may be."""
    return iteration.concurrency is not None and iteration.unfinished - iteration.parked > iteration.concurrency


def has_room(iteration: IterationRecord) -> bool:
    """Tell whether a parked shard, if there is one, may work."""
    return iteration.concurrency is None or iteration.unfinished - iteration.parked < iteration.concurrency


def park(shard: ShardRecord, iteration: IterationRecord) -> bool:
    """Park a shard, in the open transaction that holds it, if there are too many.

    Args:
        shard: which one; it is between two batches.
        iteration: as it was read without a lock.

    Returns:
        Whether it is parked; then it is written, and its slice has ended.
    """
    if not is_crowded(iteration):
        return False
    state = get_state()
    now = state.get_iteration(iteration.id, lock=True)
    if now is None or now.status != "running" or not is_crowded(now):
        return False
    shard.status, shard.owner, shard.until = "parked", "", None
    # The slice that parks has ended: a copy of it is late.
    shard.step += 1
    shard.task, shard.advanced = "", False
    state.save_shard(shard)
    now.parked += 1
    state.save_concurrency(now)
    return True


def wake(iteration_id: str) -> None:
    """Set parked shards running for which there is room, in the open transaction."""
    state = get_state()
    now = state.get_iteration(iteration_id, lock=True)
    if now is None or now.status != "running" or not now.parked:
        return
    shards = state.list_shards(iteration_id)
    parked = [shard for shard in shards if shard.status == "parked"]
    if len(parked) < now.parked:
        # REPEATABLE READ shows what was there before the lock: some have parked since, and look at work.
        parked += [shard for shard in shards if shard.status == "running"]
    for shard in parked:
        if not has_room(now):
            return
        held = state.lock_free_shard(iteration_id, shard.index)
        if held is not None and held.status == "parked":
            _wake(held, now)


def look_for_room(shard: ShardRecord) -> None:
    """Wake a parked shard that a late delivery holds: whoever made room meanwhile has passed it over."""
    now = get_state().get_iteration(shard.iteration, lock=True)
    if now is not None and now.status == "running" and has_room(now):
        _wake(shard, now)


def _wake(shard: ShardRecord, iteration: IterationRecord) -> None:
    state = get_state()
    # It has waited with good reason: the relay must not take it for stuck.
    shard.status, shard.progressed_at = "running", state.now()
    state.save_shard(shard)
    iteration.parked -= 1
    state.save_concurrency(iteration)
    enqueue_slice(iteration, shard)
