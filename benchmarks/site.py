"""The tasks that are measured."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import include, path

from benchmarks import marks
from benchmarks.models import Row
from soc_tasks import iterative_task, task


@task
def noop(request: HttpRequest) -> None:
    """Say that it ran."""
    marks.hit()


@iterative_task(Row, batch_size=1000)
def walk(request: HttpRequest, entities: list[Any]) -> None:
    """Look at each row."""
    for _ in entities:
        pass


urlpatterns = [
    path("noop/", noop, name="noop"),
    path("walk/", walk, name="walk"),
    path("_tasks/", include("soc_tasks.urls")),
]
