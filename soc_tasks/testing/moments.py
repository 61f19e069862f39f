"""The moments at which the work of a task may be interrupted, and the interruption itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from django.apps import apps
from django.db import connections

from soc_tasks.logic.budgets import Budget
from soc_tasks.logic.plans import Plan
from soc_tasks.views.slicing import between

_WRITES = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|REPLACE|MERGE|WITH)\b", re.IGNORECASE)
OURS = ("soc_tasks", "soc_tasks_engine")


class ProcessGoneError(BaseException):
    """The process is gone; no exception of the site's, so that no view and no middleware makes an answer of it."""


class _Items(list[Any]):
    """A batch that tells when whoever goes through it has done with an item."""

    def __init__(self, items: list[Any], done: Callable[[str], None]) -> None:
        super().__init__(items)
        self._done = done

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            yield item
            self._done(f"after {_name(item)}")


class Moments:
    """Counts the moments of a run, and interrupts at one of them.

    Moments are after each item, after each statement that writes to a table of the project, and when view or finalize
    has returned and its end is not yet written.

    Args:
        at: number of the moment to interrupt at; 0: none.
        in_steps: whether each delivery ends as soon as it may.

    Attributes:
        count: the moments that came.
        name: of the one that was the end, or "".
        atomic: whether what was iterated over committed with its place; None where there was no iteration.
    """

    def __init__(self, at: int = 0, *, in_steps: bool = False) -> None:
        self.at = at
        self.in_steps = in_steps
        self.count = 0
        self.name = ""
        self.atomic: bool | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch what runs in the block."""
        token = between.set(self._put_between)
        try:
            with ExitStack() as stack:
                for connection in connections.all():
                    stack.enter_context(connection.execute_wrapper(self._execute))
                yield
        finally:
            between.reset(token)

    def _pass(self, name: str) -> None:
        if not _can_roll_back():
            return
        self.count += 1
        if self.count == self.at:
            self.name = name
            raise ProcessGoneError(name)

    def _put_between(self, plan: Plan, budget: Budget, work: Callable[..., Any]) -> Callable[..., Any]:
        self.atomic = plan.atomic
        if self.in_steps:
            budget.seconds = 0.0

        def watched(*args: Any) -> Any:
            result = work(*(_Items(arg, self._pass) if type(arg) is list else arg for arg in args))
            self._pass("before the end of a batch, or of finalize, was written down")
            return result

        return watched

    def _execute(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        text = str(sql)
        if _WRITES.match(text) and not any(table in text for table in own_tables()):
            self._pass(f"after {' '.join(text.split())[:60]}")
        return result


def _can_roll_back() -> bool:
    """Tell whether what is open can be rolled back without the transaction of a test case."""
    connection: Any  # atomic_blocks and savepoint_ids are not in the stubs
    for connection in connections.all(initialized_only=True):
        outer = sum(1 for block in connection.atomic_blocks if block._from_testcase)
        # A block without a savepoint, as that of QuerySet.delete(): a site's own transaction, and here none of its own.
        if outer and connection.savepoint_ids[outer - 1 : outer] == [None]:
            return False
    return True


def _name(item: Any) -> str:
    key = getattr(item, "pk", None)
    return f"{item!r:.60}" if key is None else f"{type(item).__name__} {key!s:.60}"


@lru_cache(maxsize=1)
def own_tables() -> frozenset[str]:
    """Return the names of soc_tasks' own tables."""
    return frozenset(
        model._meta.db_table
        for label in OURS
        if apps.is_installed(label.replace("_engine", ".engine"))
        for model in apps.get_app_config(label).get_models()
    )
