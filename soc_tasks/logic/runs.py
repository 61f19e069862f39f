"""Beginning and ending of an iteration, and the tasks in between: always in the state's open transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import FieldError

from soc_tasks.backends import get_backend
from soc_tasks.errors import ConfigurationError, FatalTaskError, TaskAlreadyExistsError
from soc_tasks.logic import payloads
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.cuts import count_between
from soc_tasks.logic.finalizing import find_result
from soc_tasks.logic.forms import encode_context
from soc_tasks.logic.full_logic import CountedRanges, FullLogic, KeyRange, split_evenly
from soc_tasks.logic.plans import Plan, Source, check_shards, check_skipping, explain_two_stores, make_source
from soc_tasks.logic.tasks import build_task
from soc_tasks.meta import Inherited, Meta, SliceMessage
from soc_tasks.start_ids import make_start_id
from soc_tasks.state import get_state
from soc_tasks.state.base import BusyError, IterationRecord, ShardRecord
from soc_tasks.state.locks import is_lock_error
from soc_tasks.state.transactions import ClientAlias, shares_transaction
from soc_tasks.values import CONTENT_TYPE, META_HEADER, IterationResult, Task, TaskRequest


def start_run(
    *,
    start_id: str,
    name: str,
    path: str,
    script_name: str,
    plan: Plan,
    context: Mapping[str, Any],
    inherited: Inherited,
) -> bool:
    """Begin an iteration and enqueue the first slice of each shard, in one transaction.

    Args:
        start_id: becomes the iteration's id; a second start with it is the same run.
        name: what runs, for people.
        path, script_name: where its slices are POSTed to.
        plan: what to iterate over.
        context: the original context.
        inherited: what its tasks take over.

    Returns:
        False where it had begun already.

    Raises:
        FatalTaskError: the context asks for something that is not there or not allowed.
        ConfigurationError: atomic, but entities, state and queue are not on one alias.
        BusyError: another delivery of the same start is in the way.
    """
    record, shards = prepare_run(
        start_id=start_id,
        name=name,
        path=path,
        script_name=script_name,
        plan=plan,
        context=context,
        inherited=inherited,
    )
    state = get_state()
    try:
        return state.run(lambda: begin_run(record, shards))
    except Exception as error:
        if is_lock_error(error):
            raise BusyError(str(error)) from error
        raise


def prepare_run(
    *,
    start_id: str,
    name: str,
    path: str,
    script_name: str,
    plan: Plan,
    context: Mapping[str, Any],
    inherited: Inherited,
) -> tuple[IterationRecord, list[ShardRecord]]:
    """Return what `start_run` writes, with its arguments: the iteration and its shards.

    Raises:
        FatalTaskError, ConfigurationError: as `start_run`.
    """
    source = make_source(plan, context)
    if plan.atomic:
        check_one_alias(plan, source)
    check_beginning(source)
    ranges = _find_ranges(plan, source)
    total, sizes = _count(plan, source, ranges)
    record = IterationRecord(
        id=start_id,
        name=name,
        unfinished=len(ranges),
        total=total,
        options={
            "path": path,
            "script_name": script_name,
            "inherited": inherited.as_dict(),
            "context": payloads.dumps(dict(context), "context"),
            "shards": len(ranges),
            **({"selection": True} if plan.selection is not None else {}),
        },
    )
    _check_finalize(record, plan)
    shards = [
        ShardRecord(
            iteration=start_id, index=index, start=start, end=end, expected=size, context=record.options["context"]
        )
        for index, ((start, end), size) in enumerate(zip(ranges, sizes, strict=True))
    ]
    return record, shards


def begin_run(iteration: IterationRecord, shards: list[ShardRecord]) -> bool:
    """Keep an iteration with its shards and enqueue their first slices, in the open transaction.

    Returns:
        False where it had begun already.
    """
    if not get_state().create_iteration(iteration, shards):
        return False
    _submit([_make_slice(iteration, shard) for shard in shards])
    return True


def check_beginning(source: Source) -> None:
    """Refuse an order, a start key or a query that can never work, before anything is written."""
    if source.order is None and source.start_key is None and not source.is_in_datastore:
        return
    try:
        if not isinstance(source.logic, ModelLogic):
            source.fetch(source.start_key, limit=1)
            return
        # Not a row of a table is read: to find that a filter matches none may cost a look at all.
        source.logic.in_order(source.filter, order=source.order)
        if source.start_key is not None:
            source.fetch(source.start_key, end_key=source.start_key, limit=1)
    except ValueError as error:
        raise FatalTaskError(f"The iteration cannot start: {error}") from error


def _count(plan: Plan, source: Source, ranges: Sequence[KeyRange]) -> tuple[int | None, list[int | None]]:
    """Return how many entities there are, and how many in each range, as far as that can be told."""
    if source.start_key is not None:
        # A count of all would be wrong for a run that begins in the middle.
        return None, [None] * len(ranges)
    try:
        if isinstance(ranges, CountedRanges):
            sizes = ranges.count_each()
            return sum(sizes), [*sizes]
        if plan.key_ranges_getter is not None and len(ranges) > 1 and isinstance(source.logic, ModelLogic):
            sizes = [count_between(source, start, end) for start, end in ranges]
            return sum(sizes), [*sizes]
        total = source.count()
        if total is None:
            return None, [None] * len(ranges)
        # Our own ranges hold about equally many.
        return total, [*split_evenly(total, len(ranges))]
    except FieldError as error:
        raise FatalTaskError(f"The iteration cannot start: {error}") from error
    except ValueError as error:
        if not isinstance(source.logic, FullLogic):
            raise
        raise FatalTaskError(f"The iteration cannot start: {error}") from error


def _find_ranges(plan: Plan, source: Source) -> list[KeyRange]:
    try:
        check_shards(plan, source)
        check_skipping(plan, source)
        if not isinstance(source.logic, FullLogic):
            return [(None, None)]
        return source.logic.find_key_ranges(
            plan.shards, filter=source.filter, order=source.order, getter=plan.key_ranges_getter
        )
    except (ValueError, TypeError, FieldError) as error:
        raise FatalTaskError(f"The iteration cannot start: {error}") from error


def _check_finalize(iteration: IterationRecord, plan: Plan) -> None:
    """Refuse a `finalize` that leads nowhere now, and not when all is done."""
    try:
        if plan.finalize is not None and not plan.finalizes_itself:
            _make_finalize(iteration, plan)
    except ValueError as error:
        raise FatalTaskError(f"The iteration cannot start: its finalize {plan.finalize!r} is none: {error}") from error


def check_one_alias(plan: Plan, source: Source) -> None:
    """Refuse atomic where batch, cursor and next task could not commit together.

    Raises:
        ConfigurationError: they are on different aliases.
    """
    state, entities = get_state(), source.place
    if entities is not None and isinstance(entities, ClientAlias) != isinstance(state.alias, ClientAlias):
        raise ConfigurationError(explain_two_stores(source))
    if entities is not None and not shares_transaction(entities, state.alias):
        raise ConfigurationError(
            f"atomic=True needs the entities and soc_tasks' state in one database, but the entities are on "
            f"{str(entities)!r}, and the state is on {str(state.alias)!r}."
        )
    if not get_backend().shares_transaction(state.alias):
        raise ConfigurationError("atomic=True needs a queue that commits with the state's transaction.")


def enqueue_slice(
    iteration: IterationRecord,
    shard: ShardRecord,
    *,
    countdown: float | None = None,
    held: bool = False,
) -> None:
    """Enqueue the slice that the shard stands before.

    Args:
        iteration: what the shard belongs to.
        shard: as it stands.
        countdown: seconds to wait.
        held: whether a throttle holds it back.
    """
    _submit([_make_slice(iteration, shard, countdown=countdown, held=held)])


def reissue_slice(iteration: IterationRecord, shard: ShardRecord) -> bool:
    """Enqueue the slice that the shard stands before anew, if its task is gone; return whether it was.

    Raises:
        EnqueueError: it could not be queued, or the queue did not tell whether it has the task.
        ShardBusyError: a delivery has the shard.
    """
    backend, state = get_backend(), get_state()
    task = _make_slice(iteration, shard)
    if backend.remembers_names:
        # The name of a task that is gone stays taken: that it is tells nothing.
        now = dataclasses.replace(task, name=shard.task or task.name)
        if state.find_held([now], state.alias) or backend.has_task(now):
            return False
        task = dataclasses.replace(task, name=f"{task.name}-{int(backend.now().timestamp())}")
        # Noted first: of two that are here at one time one goes on, and what is queued is what is asked for next.
        if not state.note_task(_make_message(iteration, shard), task.name, shard.task):
            return False
    try:
        _submit([task])
    except TaskAlreadyExistsError:
        return False
    return True


def _make_message(iteration: IterationRecord, shard: ShardRecord) -> SliceMessage:
    return SliceMessage(iteration=iteration.id, shard=shard.index, step=shard.step, epoch=shard.epoch)


def _make_slice(
    iteration: IterationRecord,
    shard: ShardRecord,
    *,
    countdown: float | None = None,
    held: bool = False,
) -> Task:
    message = _make_message(iteration, shard)
    # One name for one slice: while its task waits or runs, there is no second one.
    name = f"{iteration.id}-{shard.index}-{shard.epoch}-{shard.step}"
    inherited = Inherited.from_dict(iteration.options["inherited"])
    # For the deadline and the limits of its delivery, and for a dead letter; where the queue says all, it need not.
    told = None if inherited == Inherited(queue=inherited.queue) else inherited
    selected = bool(iteration.options.get("selection"))
    meta = Meta(start_id=make_start_id(), slice=message, inherited=told, held=held, selection=selected)
    return _make_task(iteration, meta, b"", countdown, name)


def is_last(iteration: IterationRecord, shard: ShardRecord) -> bool:
    """Tell whether a shard has no entities, but is what comes after all others: `finalize`, where it is a function."""
    return shard.index >= int(iteration.options.get("shards", 1))


def finish_shard(iteration: IterationRecord, plan: Plan) -> bool:
    """Count a shard as done; with the last one, see to `finalize`, or to the end. Return whether it was the last."""
    state = get_state()
    if state.finish_shard(iteration.id) > 0:
        return False
    if not plan.finalizes_itself:
        end_run(iteration, plan)
        return True
    now = state.get_iteration(iteration.id, lock=True)
    if now is None or now.status == "cancelled":
        return True
    if now.status == "paused":
        # There is nothing left to pause, as where no finalize follows.
        now.status = "running"
        state.save_iteration(now)
    last = ShardRecord(iteration=now.id, index=int(now.options.get("shards", 1)), context=now.options["context"])
    state.add_shard(last)
    _submit([_make_slice(now, last)])
    return True


def end_run(iteration: IterationRecord, plan: Plan) -> None:
    """Note that an iteration has succeeded, and start what follows, in the open transaction."""
    state = get_state()
    now = state.get_iteration(iteration.id, lock=True)
    if now is None or now.status == "cancelled":
        return
    if plan.finalize is not None and not plan.finalizes_itself:
        _submit([_make_finalize(now, plan, find_result(now.id))])
    now.status, now.finished = "succeeded", datetime.now(UTC)
    state.save_iteration(now)
    if plan.is_kept:
        forget_plan(now)
    if plan.drops_shards:
        result = find_result(now.id)
        now.options["done"], now.options["failed"] = result.done, result.failed
        state.save_options(now)
        state.drop_shards(now.id)
    if plan.repeat_in is not None and now.options.get("repeats", True):
        _repeat(now, plan.repeat_in)


def forget_plan(ended: IterationRecord) -> None:
    """Drop the plan that is kept for an iteration that has ended, unless failed items need it yet."""
    state, origin = get_state(), ended.options.get("retries")
    if origin is not None:
        first = state.get_iteration(origin)
        if first is None or first.status not in ("succeeded", "cancelled"):
            # It may be resumed.
            return
    if not state.count_failed_items(origin or ended.id)[0]:
        state.clear_payloads([origin or ended.id])


def _make_finalize(iteration: IterationRecord, plan: Plan, result: IterationResult | None = None) -> Task:
    """Return the task of a `finalize` that is a URL pattern or a view.

    Raises:
        ValueError: it is neither.
    """
    inherited = Inherited.from_dict(iteration.options["inherited"])
    request = TaskRequest(
        url=plan.finalize,
        context=payloads.loads(iteration.options["context"]),
        headers=inherited.headers,
        service=inherited.service,
        version=inherited.version,
        instance=inherited.instance,
        dispatch_deadline=inherited.dispatch_deadline,
        retry_options=inherited.retry,
    )
    return build_task(request, inherited.queue, result=result)[0]


def _repeat(iteration: IterationRecord, seconds: float) -> None:
    """Enqueue the whole iteration again, with its original context and a start id of its own."""
    body, json_keys, list_keys = encode_context(payloads.loads(iteration.options["context"]))
    meta = Meta(
        start_id=make_start_id(),
        json_keys=json_keys,
        list_keys=list_keys,
        inherited=Inherited.from_dict(iteration.options["inherited"]),
        repeat=True,
        admitted=True,
    )
    _submit([_make_task(iteration, meta, body, seconds, meta.start_id)])


def _submit(tasks: list[Task]) -> None:
    get_backend().submit(tasks, get_state().alias)


def _make_task(iteration: IterationRecord, meta: Meta, body: bytes, countdown: float | None, name: str) -> Task:
    inherited = Inherited.from_dict(iteration.options["inherited"])
    now = get_backend().now()
    eta = now + timedelta(seconds=countdown) if countdown else None
    if eta is not None:
        meta = dataclasses.replace(meta, since=round(eta.timestamp(), 3))
    return Task(
        queue=inherited.queue,
        name=name,
        path=iteration.options["path"],
        script_name=iteration.options["script_name"],
        body=body,
        headers={"Content-Type": CONTENT_TYPE, META_HEADER: meta.to_header(), **inherited.headers},
        eta=eta,
        created=now,
        dispatch_deadline=inherited.dispatch_deadline,
        retry=inherited.retry,
        service=inherited.service,
        version=inherited.version,
        instance=inherited.instance,
        start_id=meta.start_id,
    )
