"""Aliases without our tables: their tasks are handed on after the commit, by the process that made them alone.

Nothing of such a task is written with its transaction, so a process that dies between the commit and the handing on
loses it. What is refused at that moment goes to the outbox of `DATABASE`, and the relay offers it again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from django.db import connections

from soc_tasks.backends.base import Accept
from soc_tasks.state import get_state, transactions
from soc_tasks.values import Task

logger = logging.getLogger("soc_tasks")

#: Aliases of which that was said.
_told: set[str] = set()


class _Following:
    """Tasks of an open transaction; called by Django when it commits."""

    def __init__(self, tasks: Sequence[Task], accept: Accept, behind: str | None) -> None:
        self.tasks = list(tasks)
        self._accept = accept
        self._behind = behind
        # Django's log line about a hook that failed names it so.
        self.__qualname__ = "soc_tasks.backends.commits.follow"

    def __call__(self) -> None:
        """Hand the tasks on."""
        if self._behind is not None and transactions.is_open(self._behind):
            # They would be part of that transaction, and wait for its commit like everything else in it.
            transactions.on_commit(self._behind, self)
            return
        try:
            refused = self._accept(self.tasks) or {}
        except Exception as error:
            logger.warning("could not hand on %d tasks after their commit: %s", len(self.tasks), error)
            refused = dict.fromkeys(range(len(self.tasks)), error)
        if refused:
            self._keep([self.tasks[number] for number in refused])

    @staticmethod
    def _keep(tasks: Sequence[Task]) -> None:
        """Leave tasks to the relay."""
        state = get_state()
        try:
            with state.atomic():
                state.hold_tasks(tasks, state.alias)
        except Exception:
            names = ", ".join(f"{task.name} for {task.path}" for task in tasks)
            logger.exception("tasks whose transaction has committed are lost: %s", names)


def follow(tasks: Sequence[Task], using: str, accept: Accept, behind: str | None = None) -> None:
    """Hand `tasks` to `accept` once the open atomic block of `using` has committed; never if it is rolled back.

    Args:
        tasks: what is to be queued.
        using: an alias that has no outbox.
        accept: takes them over.
        behind: the alias that `accept` writes to: a transaction of that which is open then is waited for.
    """
    if using not in _told:
        _told.add(using)
        logger.warning(
            "the database %s has no outbox: tasks of its transactions are queued after the commit, and are lost if the "
            "process dies in between. %s",
            using,
            _advise(using),
        )
    transactions.on_commit(using, _Following(tasks, accept, behind))


def _advise(using: str) -> str:
    if get_state().alias in connections:
        return f"Run manage.py migrate soc_tasks --database {using}"
    return "Outboxes are kept where the state is, in Datastore"


def find_following() -> Iterator[Task]:
    """Yield the tasks that wait for the commit of a transaction of this thread."""
    for hook in transactions.find_hooks():
        if isinstance(hook, _Following):
            yield from hook.tasks
