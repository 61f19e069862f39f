"""Shards whose range is done take over a part of what others have left, so that a slow range does not hold up the run.

The transaction that moves a cursor past the last entity of a range marks its shard as **drained**; it counts as
unfinished still. Then a cut is looked up in the rest of the shard that has the most left, outside any transaction.

Where that shard rests between two slices, one transaction holds both and moves the part behind the cut over. Where it
is at work, it gives the part away itself, between two batches, when it knows best where it stands: the drained shard
writes down what it asks for, in its own record, and comes again after a while, in case nobody answers. So no batch
in flight is ever cut, nobody waits for a lock, and a run in which nobody asks pays nothing.

A drained shard that finds nothing worth its while ends: that is when it counts as finished, and not before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.cuts import find_key_behind, is_before
from soc_tasks.logic.heartbeats import is_alive
from soc_tasks.logic.parking import is_crowded
from soc_tasks.logic.plans import Source
from soc_tasks.logic.runs import enqueue_slice
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord

if TYPE_CHECKING:
    from soc_tasks.logic.slice_runs import SliceRun

logger = logging.getLogger("soc_tasks")

#: A rest is worth dividing if it holds so many batches, and takes so many seconds.
LEAST_BATCHES = 2
LEAST_SECONDS = 1.0
#: How many shards are looked at for one that has as much left as it seems.
PROBES: Final = 3
#: How often another part is looked for, where shards have moved meanwhile.
ROUNDS: Final = 3
#: Seconds until one that has asked looks again; a quarter of the time that it has waited, between these.
SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Part:
    """A part of another shard's rest.

    Args:
        victim: index of the other shard.
        cut: key where the part begins.
        end: where it ends, which is the other's end.
        rows: about how many entities it holds.
    """

    victim: int
    cut: str
    end: str | None
    rows: int


def may_steal(source: Source, iteration: IterationRecord, shard: ShardRecord) -> bool:
    """Tell whether a shard whose range is done should look for a part of another's, in the open transaction."""
    if int(iteration.options.get("shards", 1)) < 2 or not isinstance(source.logic, ModelLogic):
        return False
    if iteration.status != "running" or _has_enough(iteration):
        return False
    return bool(_rank(source, iteration, get_state().list_shards(iteration.id), shard.index))


def _has_enough(iteration: IterationRecord) -> bool:
    """Tell whether a shard that is done should make room: for one that is parked, or for the limit."""
    return bool(iteration.parked) or is_crowded(iteration)


def find_work(run: SliceRun) -> tuple[ShardRecord, IterationRecord] | None:
    """Take over a part for a drained shard, ask for one, or end the shard.

    Returns:
        The shard and its iteration, if the slice goes on.

    Raises:
        ShardBusyError: the shard is locked elsewhere, or its lease was lost.
    """
    for number in range(ROUNDS):
        part = _find_part(run)
        with run.hold_shard() as shard:
            iteration = run.judge(shard) if run.holds(shard) else None
            if shard is None or iteration is None:
                if shard is not None:
                    run.check_place(shard)
                    run.let_go(shard)
                return None
            if not shard.drained:
                # It was given what it had asked for.
                return shard, iteration
            if part is None or _has_enough(iteration):
                shard.wants = None
                run.end_shard(shard, iteration)
                return None
            taken = _take(run, shard, iteration, part)
            if not taken and (number == ROUNDS - 1 or taken is False):
                waited = (run.state.now() - (shard.progressed_at or run.state.now())).total_seconds()
                countdown = min(max(SHORTEST_WAIT, waited / 4), LONGEST_WAIT)
                run.hand_over(shard, iteration, countdown=countdown)
            run.state.save_shard(shard)
        if taken:
            return shard, iteration
        if taken is False:
            return None
    return None


def give_away(run: SliceRun, shard: ShardRecord, iteration: IterationRecord) -> None:
    """Answer those that have asked for a part of a shard's rest, in the open transaction that has moved its cursor."""
    state, asked = run.state, False
    for asking in state.list_shards(iteration.id):
        if not _asks(asking, shard):
            asked = asked or asking.wants is not None
            continue
        asked = True
        thief = state.lock_free_shard(iteration.id, asking.index)
        if thief is None or not _asks(thief, shard):
            continue
        source = _get_source(run, iteration)
        if thief.start is not None and thief.end == shard.end and is_before(source, shard.cursor, thief.start):
            _move(thief, shard, thief.expected)
        else:
            # Too late, or another was first; it looks for another part.
            thief.wants = None
        if not thief.owner:
            # It need not wait until it would come by itself.
            thief.step += 1
            thief.task, thief.advanced = "", False
            enqueue_slice(iteration, thief)
        state.save_shard(thief)
    if not asked:
        state.set_wanted(iteration.id, False)


def _asks(thief: ShardRecord, victim: ShardRecord) -> bool:
    return thief.wants == victim.index and thief.drained and thief.status == "running" and thief.epoch == victim.epoch


def _take(run: SliceRun, shard: ShardRecord, iteration: IterationRecord, part: Part) -> bool | None:
    """Take a part over, or else ask for it; None where it cannot be had, and another should be looked for."""
    state = run.state
    victim = state.lock_free_shard(iteration.id, part.victim)
    expected = shard.done + shard.failed + part.rows
    if victim is not None:
        if not _is_open(victim, shard) or victim.end != part.end:
            shard.wants = None
            return None
        if not victim.owner or not is_alive(victim.until, state.now()):
            if not is_before(_get_source(run, iteration), _place(victim), part.cut):
                shard.wants = None
                return None
            # Whoever had the lease and is late must not move the cursor past the cut.
            victim.owner, victim.until = "", None
            shard.start, shard.end = part.cut, part.end
            _move(shard, victim, expected)
            state.save_shard(victim)
            return True
    # It is at work.
    shard.wants, shard.start, shard.end, shard.expected = part.victim, part.cut, part.end, expected
    if not iteration.wanted:
        state.set_wanted(iteration.id, True)
    return False


def _move(thief: ShardRecord, victim: ShardRecord, expected: int | None) -> None:
    """Make what is behind the cut, where the thief begins by now, the thief's."""
    victim.end = thief.start
    thief.cursor, thief.drained, thief.wants = None, False, None
    thief.progressed_at = get_state().now()
    thief.expected = expected
    if victim.expected is not None and expected is not None:
        victim.expected = max(victim.done + victim.failed, victim.expected - (expected - thief.done - thief.failed))


def _find_part(run: SliceRun) -> Part | None:
    """Return the part that was asked for, or a new one; None where nothing is worth its while."""
    iteration = run.state.get_iteration(run.message.iteration)
    if iteration is None:
        return None
    source = _get_source(run, iteration)
    if not isinstance(source.logic, ModelLogic):
        return None
    shards = {shard.index: shard for shard in run.state.list_shards(iteration.id)}
    own = shards.get(run.message.shard)
    if own is None:
        return None
    asked = None if own.wants is None else shards.get(own.wants)
    if asked is not None and own.start is not None and _is_open(asked, own) and asked.end == own.end:
        return Part(asked.index, own.start, own.end, max(0, (own.expected or 0) - own.done - own.failed))
    return next(_find_cuts(source, _rank(source, iteration, list(shards.values()), own.index)), None)


def _get_source(run: SliceRun, iteration: IterationRecord) -> Source:
    """Return what is divided; the failed items of a retry, which has one shard, never are."""
    source = run.get_source(iteration)
    assert isinstance(source, Source)  # others are not asked for parts
    return source


def _find_cuts(source: Source, ranked: list[tuple[int, ShardRecord]]) -> Iterator[Part]:
    for left, victim in ranked[:PROBES]:
        try:
            cut = find_key_behind(source, _place(victim), victim.end, left // 2)
        except Exception:
            # It would have gone on without this shard; a run must not fail of what only makes it faster.
            logger.warning("found no cut in shard %d of %s", victim.index, victim.iteration, exc_info=True)
            return
        if cut is not None:
            yield Part(victim.index, cut, victim.end, left - left // 2)


def _rank(
    source: Source, iteration: IterationRecord, shards: list[ShardRecord], index: int
) -> list[tuple[int, ShardRecord]]:
    """Return how many entities others have left, as far as that is known, and these, the longest first."""
    own = next(shard for shard in shards if shard.index == index)
    ranked = []
    for shard in shards:
        left = (shard.expected or 0) - shard.done - shard.failed
        batch = shard.batch_size or source.batch_size or source.logic.batch_size
        rate = _estimate_rate(shard, iteration) or _estimate_rate(own, iteration)
        seconds = left / rate if rate else float("inf")
        if _is_open(shard, own) and left >= max(2, LEAST_BATCHES * batch) and seconds >= LEAST_SECONDS:
            ranked.append((seconds, left, shard))
    ranked.sort(key=lambda item: (-item[0], -item[1], item[2].index))
    return [(left, shard) for _, left, shard in ranked]


def _estimate_rate(shard: ShardRecord, iteration: IterationRecord) -> float:
    """Return how many entities a shard does a second, or 0 where it has yet to show that."""
    if shard.rate or not shard.done or shard.progressed_at is None or iteration.created is None:
        return shard.rate
    return shard.done / max((shard.progressed_at - iteration.created).total_seconds(), 1e-3)


def _is_open(shard: ShardRecord, own: ShardRecord) -> bool:
    """Tell whether a shard is at work on a range, in the same epoch."""
    return shard.index != own.index and shard.status == "running" and not shard.drained and shard.epoch == own.epoch


def _place(shard: ShardRecord) -> str | None:
    return shard.cursor if shard.cursor is not None else shard.start
