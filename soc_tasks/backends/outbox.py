"""The outbox: tasks that commit with somebody else's transaction, and are handed on afterwards.

1. `hold` writes rows in the caller's transaction, leased to the caller.
2. When that commits, the caller hands the tasks on and drops the rows.
3. If the process dies in between, the lease ends and `relay` (worker, command, URL) does both.

A task may be handed on twice when a process dies between the two; the start id in its header lets receipts and
fences tell.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import Error, connections

from soc_tasks.backends.base import Accept, RefusedForGoodError
from soc_tasks.backends.commits import find_following
from soc_tasks.conf import get_settings
from soc_tasks.errors import BackendUnavailableError, EnqueueError, TaskTooLargeError
from soc_tasks.state import get_state, transactions
from soc_tasks.state.base import BusyError, HeldId
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks")

#: For how long a task is offered again that was refused for a reason that may pass, such as a queue that is not there.
PATIENCE: Final = timedelta(days=1)

#: Aliases whose outbox could not be handed on in the last round, which was said.
_in_trouble: set[str] = set()

#: How many tasks one call of `relay` hands on at a time.
RELAY_BATCH = 100
#: How often one call does that for an alias: its caller has something else to do as well.
RELAY_ROUNDS = 100


def hold(tasks: Sequence[Task], using: str, accept: Accept) -> None:
    """Keep `tasks` with the transaction of `using`, and hand them to `accept` once it has committed."""
    with _translated(using), transactions.atomic(using):
        ids = get_state().hold_tasks(tasks, using)

        def hand_on() -> None:  # no partial: Django wants a name when one fails
            _hand_on(list(tasks), ids, using, accept)

        transactions.on_commit(using, hand_on)


def can_hold(using: str) -> bool:
    """Tell whether an alias has an outbox; without one, tasks can only follow its commit (commits.py)."""
    with _translated(using):
        return get_state().has_outbox(using)


@contextmanager
def _translated(using: str) -> Iterator[None]:
    """Turn an error of the database into one that says what to do."""
    try:
        yield
    except Error as error:
        hint = f" If its table is missing, run `manage.py migrate --database {using}`." if using in connections else ""
        raise BackendUnavailableError(
            f"The task could not be written to the outbox on {using!r}: {error}.{hint}"
        ) from error


def find_taken(tasks: Sequence[Task], using: str) -> list[Task]:
    """Return those of `tasks` whose chosen name stands twice among them, or waits in an outbox already.

    Looked at are the outbox of `using`, those that this thread is writing to, and what waits for its commits.
    """
    state, taken = get_state(), []
    named = [task for task in tasks if task.named]
    seen = {(task.queue, task.name) for task in find_following()} if named else set()
    for alias in ({using} - {state.alias}) | state.open_outboxes() if named else ():
        if alias != using or can_hold(alias):
            with _translated(alias):
                seen |= state.find_held(named, alias)
    for task in named:
        key = (task.queue, task.name)
        if key in seen:
            taken.append(task)
        seen.add(key)
    return taken


def _hand_on(tasks: Sequence[Task], ids: Sequence[HeldId], using: str, accept: Accept) -> None:
    for target in {get_state().alias, get_settings().database}:
        if transactions.is_open(target):
            # Handed on now, the tasks would be undone with a transaction that they are no part of, and their rows gone.
            # If it commits they are handed on then; if not, by the relay.
            transactions.on_commit(target, lambda: _hand_on(tasks, ids, using, accept))
            return
    try:
        _offer(tasks, ids, using, accept)
    except (EnqueueError, Error, BusyError):
        # The rows are safe: the relay takes them when the lease of this process has ended.
        logger.exception("could not hand on %d tasks from the outbox on %s; the relay will", len(tasks), using)


def relay(accept: Accept) -> int:
    """Hand on what waits in the outboxes of all aliases; return how many tasks that were."""
    count = 0
    for using in get_state().outbox_aliases():
        try:
            count += _relay_alias(using, accept)
        except (BackendUnavailableError, Error, BusyError) as error:
            # Their lease ends, and the next call tries again; the other aliases need not wait for that.
            if using not in _in_trouble:
                logger.warning("could not hand on what waits in the outbox on %s, trying again: %s", using, error)
            _in_trouble.add(using)
        except EnqueueError:
            logger.exception("could not hand on what waits in the outbox on %s", using)
        else:
            _in_trouble.discard(using)
    return count


def _relay_alias(using: str, accept: Accept) -> int:
    state, count = get_state(), 0
    for _ in range(RELAY_ROUNDS):
        if not (held := list(state.take_held(using, limit=RELAY_BATCH))):
            break
        count += _offer([task for _, task in held], [row for row, _ in held], using, accept)
    return count


def _offer(tasks: Sequence[Task], ids: Sequence[HeldId], using: str, accept: Accept) -> int:
    """Hand tasks on, and drop the rows of those that were taken; return how many that were."""
    state, refused = get_state(), accept(tasks) or {}
    state.drop_held(using, [row for number, row in enumerate(ids) if number not in refused])
    for number, error in refused.items():
        task = tasks[number]
        for_good = isinstance(error, RefusedForGoodError | TaskTooLargeError)
        if for_good or datetime.now(UTC) - task.created > PATIENCE:
            logger.error("task %s for queue %s was refused and is a dead letter now: %s", task.name, task.queue, error)
            state.task_refused(task, error)
            # Dropped last: if this process ends in between, there are two letters rather than none.
            state.drop_held(using, [ids[number]])
        else:
            logger.warning("task %s for queue %s stays in the outbox: %s", task.name, task.queue, error)
    return len(tasks) - len(refused)
