"""The function as a task of django-tasks, which is found by its name in this module."""

from __future__ import annotations

from django_tasks import task

from benchmarks.contenders.work import noop


@task()
def call(number: int = 0, address: str = "") -> None:
    """Say that it ran."""
    noop(number, address)
