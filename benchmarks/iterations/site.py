"""The tasks that are measured."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.urls import include, path

from benchmarks.iterations import series, shapes
from benchmarks.iterations.work import BATCH, SHARDS, do_all
from benchmarks.models import Row
from soc_tasks import iterative_task, startTask, task


@iterative_task(Row, batch_size=BATCH, shards=SHARDS)
def leased(request: HttpRequest, entities: list[Any]) -> None:
    """Work on each row; a batch may come again."""
    do_all(entities)


@iterative_task(Row, batch_size=BATCH, shards=SHARDS, atomic=True)
def atomic(request: HttpRequest, entities: list[Any]) -> None:
    """Work on each row; a batch commits with its place."""
    do_all(entities)


@iterative_task(Row, batch_size=1000, atomic=True)
def noted(request: HttpRequest, entities: list[Any]) -> None:
    """Note when each batch comes, and the memory."""
    series.note()


@task
def melange(request: HttpRequest) -> None:
    """Be a page of Melange's: a batch, and a task for the next one."""
    following = shapes.work_on_page(int(request.task.context["start"]))  # type: ignore[attr-defined]
    if following is not None:
        startTask("melange", {"start": following})


@task
def djangae(request: HttpRequest) -> None:
    """Be a shard of djangae's."""
    context = request.task.context  # type: ignore[attr-defined]
    shapes.work_on_shard(context["start"], context["end"], Row.objects.all())
    with transaction.atomic():
        shapes.count_shard()


urlpatterns = [
    path("leased/", leased, name="leased"),
    path("atomic/", atomic, name="atomic"),
    path("noted/", noted, name="noted"),
    path("melange/", melange, name="melange"),
    path("djangae/", djangae, name="djangae"),
    path("_tasks/", include("soc_tasks.urls")),
]
