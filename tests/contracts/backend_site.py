"""The site of the contract of backends: task views that write down how they were called, and do what a test says."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.urls import path

from soc_tasks import (
    TaskInfo,
    from_queue,
    is_in_task,
    iterative_task,
    superuser,
    task,
    task_execution_count,
    task_name,
    task_queue_name,
    task_retry_count,
)
from tests.specimen.models import Tag


@dataclasses.dataclass
class Call:
    """One run of a view, as the view saw it."""

    info: TaskInfo
    kwargs: dict[str, Any]
    method: str
    post: dict[str, list[str]]
    query: dict[str, str]
    headers: dict[str, str]
    #: What code without the request is told: whether it is in a task, its name, queue and counts.
    told: tuple[Any, ...]


#: The runs, in order.
calls: list[Call] = []
#: What the next runs do, one after the other: raise an exception, or call a function and return what it returns.
acts: list[Any] = []
#: What all runs do when `acts` is used up.
always: list[Any] = []


def reset() -> None:
    """Forget what was, and what is to be."""
    for each in (calls, acts, always):
        each.clear()


def tell() -> tuple[Any, ...]:
    """Return what code without the request is told."""
    return (is_in_task(), task_name(), task_queue_name(), task_retry_count(), task_execution_count())


def _play(request, **kwargs):
    calls.append(
        Call(
            info=request.task,
            kwargs=kwargs,
            method=request.method,
            post=dict(request.POST.lists()),
            query=request.GET.dict(),
            headers=dict(request.headers),
            told=tell(),
        )
    )
    act = acts.pop(0) if acts else always[0] if always else None
    if isinstance(act, Exception):
        raise act
    return None if act is None else act(request)


@task
def play(request, slug=None):
    return _play(request, slug=slug)


@task(atomic=True)
def play_atomic(request):
    return _play(request)


@task(access=from_queue | superuser)
def play_for_people(request):
    return _play(request)


@iterative_task(Tag, order="pk", batch_size=10, time_limit=1e-9)
def visit(request, entities, context):
    context["visited"] = context.get("visited", 0) + len(entities)
    _play(request, entities=[tag.name for tag in entities], visited=context["visited"])


@iterative_task(Tag, batch_size=10, atomic=True)
def mark(request, entities):
    _play(request)
    for tag in entities:
        tag.name += "!"
        tag.save()


@iterative_task(Tag, batch_size=10, atomic=True, on_error="skip")
def choose(request, entities):
    """Mark what is not bad."""
    for tag in entities:
        if tag.name.startswith("bad"):
            raise ValueError(tag.name)
        tag.name += "!"
        tag.save()


urlpatterns = [
    path("tasks/play/", play, name="play"),
    path("tasks/play/<slug:slug>/", play, name="play_slug"),
    path("tasks/play-atomic/", play_atomic, name="play_atomic"),
    path("tasks/play-for-people/", play_for_people, name="play_for_people"),
    path("tasks/visit/", visit, name="visit"),
    path("tasks/mark/", mark, name="mark"),
    path("tasks/choose/", choose, name="choose"),
]
