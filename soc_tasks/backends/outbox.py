"""The outbox: tasks that commit with somebody else's transaction, and are handed on afterwards.

1. `hold` writes rows in the caller's transaction, leased to the caller.
2. When that commits, the caller hands the tasks on and drops the rows.
3. If the process dies in between, the lease ends and `relay` (worker, command, URL) does both.

A task may be handed on twice when a process dies between the two; the start id in its header lets receipts and
fences tell.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from django.db import Error, connections, transaction

from soc_tasks.errors import ConfigurationError, EnqueueError
from soc_tasks.state import get_state
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks")

#: Takes tasks over; a name that is taken already counts as success.
Accept = Callable[[Sequence[Task]], None]

#: How many tasks one call of `relay` hands on at a time.
RELAY_BATCH = 100


def hold(tasks: Sequence[Task], using: str, accept: Accept) -> None:
    """Keep `tasks` with the transaction of `using`, and hand them to `accept` once it has committed.

    Raises:
        ConfigurationError: `using` is no database alias.
    """
    if using not in connections:
        raise ConfigurationError(f"using={using!r} is no alias of DATABASES; known are {', '.join(connections)}.")
    with transaction.atomic(using=using):
        ids = get_state().hold_tasks(tasks, using)

        def hand_on() -> None:  # no partial: Django wants a name when one fails
            _hand_on(list(tasks), ids, using, accept)

        transaction.on_commit(hand_on, using=using, robust=True)


def find_taken(tasks: Sequence[Task], using: str) -> list[Task]:
    """Return those of `tasks` whose chosen name stands twice among them, or waits in the outbox already."""
    named = [task for task in tasks if task.named]
    seen = get_state().find_held(named, using) if named else set()
    taken = []
    for task in named:
        key = (task.queue, task.name)
        if key in seen:
            taken.append(task)
        seen.add(key)
    return taken


def _hand_on(tasks: Sequence[Task], ids: Sequence[int], using: str, accept: Accept) -> None:
    try:
        accept(tasks)
        get_state().drop_held(using, ids)
    except (EnqueueError, Error):
        # The rows are safe: the relay takes them when the lease of this process has ended.
        logger.exception("could not hand on %d tasks from the outbox on %s; the relay will", len(tasks), using)


def relay(accept: Accept) -> int:
    """Hand on what waits in the outboxes of all aliases; return how many tasks that were."""
    count = 0
    for using in get_state().outbox_aliases():
        try:
            count += _relay_alias(using, accept)
        except (EnqueueError, Error):
            # Their lease ends, and the next call tries again; the other aliases need not wait for that.
            logger.exception("could not hand on what waits in the outbox on %s", using)
    return count


def _relay_alias(using: str, accept: Accept) -> int:
    state, count = get_state(), 0
    while held := list(state.take_held(using, limit=RELAY_BATCH)):
        accept([task for _, task in held])
        state.drop_held(using, [row for row, _ in held])
        count += len(held)
    return count
