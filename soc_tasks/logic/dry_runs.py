"""Dry runs: batches of an iteration, each in transactions that roll back, and what they tell of the whole.

A batch goes the way of a real one: through URL conf and middleware, to the view, which is handed what it would be
handed. Each has transactions of its own, so that no lock is held for longer than in the real run; the place where the
iteration stands is kept in memory.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from soc_tasks.backends import backend_in_place, get_backend
from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.logic.dry_run_reports import Failure, Report
from soc_tasks.logic.failed_items import find_plan
from soc_tasks.logic.held_back import HoldingBackend, connections_kept, mails_held_back, rolled_back
from soc_tasks.logic.rehearsals import Rehearsal
from soc_tasks.logic.runs import is_last
from soc_tasks.logic.statements import TransactionEndedError, Watch
from soc_tasks.logic.tasks import build_task
from soc_tasks.logic.urls import resolve_target
from soc_tasks.meta import Inherited, Meta, SliceMessage
from soc_tasks.start_ids import make_start_id
from soc_tasks.state import get_state
from soc_tasks.state.base import IterationRecord, ShardRecord
from soc_tasks.state.transactions import ClientAlias
from soc_tasks.values import CONTENT_TYPE, META_HEADER, Delivery, Task, TaskRequest


class DryRunError(Exception):
    """There is nothing that could be tried."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a dry run ends, whichever comes first; None: nowhere. Batches are not cut for it, but by the time.

    Args:
        rows, batches: after so many.
        seconds: after so long in fetching and in the view.
    """

    rows: int | None = None
    batches: int | None = None
    seconds: float | None = None

    def find_reached(self, report: Report) -> str:
        """Return which one was reached, for people, or ""."""
        if self.rows is not None and report.rows >= self.rows:
            return f"{self.rows:,} rows"
        if self.batches is not None and report.batches >= self.batches:
            return f"{self.batches:,} batches"
        if self.seconds is not None and report.seconds >= self.seconds:
            return f"{self.seconds:g} s"
        return ""


class DryRun:
    """Tries an iteration.

    It puts a backend and a way of mail in the place of the site's, for the whole process: it belongs into a process of
    its own.

    Args:
        limits: where it ends.
        queue: the queue that the task is told that it comes from, unless the iteration is there already.
        progress: called with the report after each batch.
    """

    def __init__(
        self, limits: Limits, *, queue: str = "default", progress: Callable[[Report], None] | None = None
    ) -> None:
        self.limits = limits
        self.queue = queue
        self.progress = progress
        self.report = Report()
        self._watch = Watch()

    def try_task(self, url: str, context: Mapping[str, Any] | None = None) -> Report:
        """Try the iteration that a task would start.

        Args:
            url, context: as for `startTask`.

        Raises:
            ValueError: the URL leads to no task view; PayloadError: the context cannot travel.
            DryRunError: its view does not iterate, or the iteration could not begin.
        """
        get_backend().check_queue(self.queue)
        target = resolve_target(url)
        if not target.options.iterates:
            raise DryRunError(f"{target.path} is a plain task: only iterations can be tried dry.")
        if target.options.plan.is_kept:
            raise DryRunError("A deferred iteration is tried by its id, once it has begun: pause it before if need be.")
        task, _ = build_task(TaskRequest(url=target.path, context=context), self.queue, admitted=True)
        return self._run(lambda backend, dispatch: self._begin(task, backend, dispatch))

    def try_iteration(self, iteration_id: str) -> Report:
        """Try what an iteration has yet to do, from where it stands.

        Args:
            iteration_id: its id.

        Raises:
            DryRunError: it is not there, or has nothing left to do.
        """
        state = get_state()
        record = state.get_iteration(iteration_id)
        if record is None:
            raise DryRunError(f"There is no iteration {iteration_id!r}: its start has not run yet, or it is gone.")
        shards = state.list_shards(iteration_id)
        # A drained one has nothing left, and looks for a part of what another has.
        left = [
            shard for shard in shards if shard.status != "done" and not shard.drained and not is_last(record, shard)
        ]
        if not left:
            raise DryRunError(
                f"Iteration {iteration_id} is {record.status} and has no rows left to try. To try it from the "
                "beginning, name its task, with --context."
            )
        if record.status == "cancelled" and state.get_payload(find_plan(record)[0]) == b"":
            raise DryRunError(
                f"What iteration {iteration_id} goes over, and its functions, were dropped when it was cancelled, so "
                "that nothing of it can be tried; start it anew."
            )
        self.report.done_before = sum(shard.done for shard in shards)
        self.report.iteration = record.id
        return self._run(lambda backend, dispatch: (record, left))

    def _run(self, begin: Callable[..., tuple[IterationRecord, list[ShardRecord]]]) -> Report:
        if isinstance(get_state().alias, ClientAlias):
            # Before anything runs: no transaction is around what a view writes there.
            raise DryRunError(
                "A dry run undoes what is written to databases in DATABASES alone, and the state is in Datastore: what "
                "batches write there would stay. Try the iteration on an emulator, in a namespace of its own."
            )
        backend = HoldingBackend(get_backend())
        with backend_in_place(backend), connections_kept(), mails_held_back() as mails:
            dispatch = InProcessDispatcher()
            iteration, shards = begin(backend, dispatch)
            report = self.report
            report.name, report.path, report.total = iteration.name, iteration.options["path"], iteration.total
            report.shards = len(shards)
            breathe = get_state().make_breather()
            # In turn: what the ranges of keys hold may differ.
            waiting = list(shards)
            while waiting and not report.failures:
                if reached := self.limits.find_reached(report):
                    report.stopped_at = reached
                    break
                shard = waiting.pop(0)
                breathe()
                self._try_batch(iteration, shards, shard, backend, dispatch, mails)
                if shard.status != "done":
                    waiting.append(shard)
                if self.progress is not None:
                    self.progress(report)
        return self.report

    def _begin(
        self, task: Task, backend: HoldingBackend, dispatch: InProcessDispatcher
    ) -> tuple[IterationRecord, list[ShardRecord]]:
        rehearsal = Rehearsal(self._watch)
        delivery = self._make_delivery(task, rehearsal)
        with rolled_back(self._watch):
            answer = dispatch(task, delivery)
            backend.take()
        if delivery.failures:
            raise DryRunError(str(delivery.failures[-1])) from delivery.failures[-1]
        if rehearsal.iteration is None:
            raise DryRunError(f"The site answered {answer.status} to {task.path}, before its view was reached.")
        return rehearsal.iteration, rehearsal.shards

    def _try_batch(
        self,
        iteration: IterationRecord,
        shards: list[ShardRecord],
        shard: ShardRecord,
        backend: HoldingBackend,
        dispatch: InProcessDispatcher,
        mails: list[Any],
    ) -> None:
        task = _make_slice(iteration, shard)
        rehearsal = Rehearsal(self._watch, iteration, shard)
        delivery = self._make_delivery(task, rehearsal)
        report, queries = self.report, self._watch.queries
        try:
            with rolled_back(self._watch) as transactions:
                if not report.iteration:
                    # For a view that looks its own iteration up.
                    get_state().create_iteration(iteration, shards)
                answer = dispatch(task, delivery)
                transactions.note_hooks()
                report.note_held_back(backend.take(), mails, transactions.hooks)
        except TransactionEndedError as error:
            delivery.failures.append(error)
        mails.clear()
        report.note_batch(rehearsal, self._watch, queries)
        if delivery.failures:
            report.failures.append(Failure.of(delivery.failures[-1], report.batches, shard.index, rehearsal.failing))
        elif rehearsal.plan is None:
            raise DryRunError(f"The site answered {answer.status} to {task.path}, before its view was reached.")

    def _make_delivery(self, task: Task, rehearsal: Rehearsal) -> Delivery:
        started, before = time.monotonic(), self.report.seconds

        def is_time_up() -> bool:
            return self.limits.seconds is not None and before + time.monotonic() - started >= self.limits.seconds

        return Delivery(queue=task.queue, name=task.name, eta=task.created, stopping=is_time_up, rehearsal=rehearsal)


def _make_slice(iteration: IterationRecord, shard: ShardRecord) -> Task:
    message = SliceMessage(iteration=iteration.id, shard=shard.index, step=shard.step, epoch=shard.epoch)
    inherited = Inherited.from_dict(iteration.options["inherited"])
    meta = Meta(start_id=make_start_id(), slice=message, selection=bool(iteration.options.get("selection")))
    return Task(
        queue=inherited.queue,
        name=f"{iteration.id}-{shard.index}-{shard.epoch}-{shard.step}",
        path=iteration.options["path"],
        script_name=iteration.options["script_name"],
        body=b"",
        headers={"Content-Type": CONTENT_TYPE, META_HEADER: meta.to_header(), **inherited.headers},
        created=get_backend().now(),
        start_id=meta.start_id,
    )
