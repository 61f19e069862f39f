"""Tasks for the engine's tests."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

from django.db import transaction

from soc_tasks.engine.attempts import Job
from soc_tasks.engine.verdicts import Outcome, Verdict, judge
from soc_tasks.values import Answer, Task

_numbers = itertools.count(1)


def make_task(path="/count", **fields):
    """Return a task with a name of its own; `name="…"` is a chosen one."""
    number = next(_numbers)
    fields.setdefault("queue", "default")
    fields.setdefault("named", "name" in fields)
    fields.setdefault("name", f"task-{number}")
    fields.setdefault("start_id", f"{number:032x}")
    fields.setdefault("headers", {"Content-Type": "application/x-www-form-urlencoded"})
    return Task(path=path, **fields)


def done(*leased):
    return [Verdict(task, Outcome.DONE) for task in leased]


def returned(*leased):
    return [Verdict(task, Outcome.RETURNED) for task in leased]


def judged(clock, leased, status=500, **answer):
    """Return the verdict on a task that was answered just now."""
    return judge(leased, Answer(status=status, **answer), clock.now(), clock.now())


def names(items):
    """Return the names of leased tasks, jobs, records or tasks."""
    return [(item.leased if isinstance(item, Job) else getattr(item, "task", item)).name for item in items]


@contextmanager
def rolled_back(using=None):
    """Open a transaction that rolls back."""
    try:
        with transaction.atomic(using=using):
            yield
            raise ZeroDivisionError
    except ZeroDivisionError:
        return
