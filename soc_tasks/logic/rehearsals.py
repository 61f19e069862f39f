"""One delivery of a dry run, in the place of a start or a slice: what these do, but for all that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from django.db.models import Model

from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan
from soc_tasks.logic.slice_runs import Process, SliceRun
from soc_tasks.logic.statements import Watch
from soc_tasks.meta import SliceMessage
from soc_tasks.state.base import IterationRecord, ShardRecord

#: Returns the iteration and its shards, of a start.
Prepare = Callable[[], tuple[IterationRecord, list[ShardRecord]]]


class Rehearsal:
    """What a delivery is to try, and what came of it.

    Args:
        watch: counts what the batch does to databases.
        iteration: what is iterated over; None for a start, which finds it out.
        shard: where the batch is fetched; it is moved on when that is done.

    Attributes:
        plan: the plan of the view.
        shards: of a start.
        seconds: time that fetching and the view took.
        reads: statements that fetching took.
        done: entities that are done.
        failing: what the view failed on, for people.
    """

    def __init__(
        self, watch: Watch, iteration: IterationRecord | None = None, shard: ShardRecord | None = None
    ) -> None:
        self.watch = watch
        self.iteration = iteration
        self.shard = shard
        self.plan: Plan | None = None
        self.shards: list[ShardRecord] = []
        self.seconds = 0.0
        self.reads = 0
        self.done = 0
        self.failing = ""

    def begin(self, plan: Plan, prepare: Prepare) -> None:
        """Find out what is iterated over, in the place of a start."""
        self.plan = plan
        self.iteration, self.shards = prepare()

    def try_batch(self, message: SliceMessage, plan: Plan, process: Process, budget: Budget) -> None:
        """Fetch and run one batch, in the place of a slice.

        Raises:
            Exception: what the view raised, or the logic.
        """
        assert self.iteration is not None  # known since the start
        assert self.shard is not None
        self.plan = plan
        run = SliceRun(message, plan, process, budget, None)
        queries, started = self.watch.queries, time.perf_counter()
        self.watch.is_counting = True
        try:
            step = run.fetch(self.shard, self.iteration)
            self.reads = self.watch.queries - queries
            self.failing = _name_batch(step.entities)
            with run.state.atomic() if plan.atomic else nullcontext():
                done = run.call(step, self.shard)
        finally:
            self.seconds = time.perf_counter() - started
            self.watch.settle()
            self.watch.is_counting = False
        self.done = len(done.entities)
        self.shard.cursor, self.shard.context = done.next_key, done.context
        self.shard.done += self.done
        if run.pace is not None and done.entities:
            run.pace.end(self.done)
            self.shard.batch_size = run.pace.size
        if done.error is not None:
            self.failing = _name(step.entities[self.done])
            raise done.error
        if done.next_key is None:
            self.shard.status = "done"


def _name_batch(entities: list[Any]) -> str:
    if not entities:
        return ""
    if len(entities) == 1:
        return _name(entities[0])
    return f"a batch of {len(entities):,}, from {_name(entities[0])} to {_name(entities[-1])}"


def _name(entity: Any) -> str:
    if isinstance(entity, Model):
        return f"{entity._meta.label} {entity.pk}"
    return f"{entity!r:.100}"
