"""Its views: an iteration over a kind, a task, deferred calls, and ordinary views that start them in a transaction."""

from __future__ import annotations

import random

from django.http import HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from google.cloud import datastore

from soc_tasks import DatastoreLogic, FatalTaskError, defer, iterative_task, startTask, task
from soc_tasks.state.datastore import get_client


def note(kind, **properties):
    """Put an entity with an id of Datastore's own."""
    client = get_client()
    entity = datastore.Entity(client.key(kind))
    entity.update(properties)
    client.put(entity)


def finalize(context):
    note("Finalized")


@iterative_task(DatastoreLogic("City"), atomic=True, batch_size=20, shards=4, finalize=finalize)
def visit(request, entities):
    for entity in entities:
        entity["hits"] += 1
    get_client().put_multi(entities)


@task(atomic=True)
def remember(request):
    note("Remembered", number=request.task.context["number"])


@task
def refuse(request):
    raise FatalTaskError("refused")


def take_note(number, filling=None):
    """Deferred: leave an effect."""
    note("Remembered", number=number)


def start_visit(request):
    client = get_client()
    with client.transaction():
        note("Started")
        handle = startTask("visit", using=client)
    return HttpResponse(handle.iteration)


def start_some(request):
    client = get_client()
    with client.transaction():
        startTask("remember", {"number": 1}, using=client)
        defer(take_note, 2, _using=client)
        # Too large for a task, and no text that gets shorter.
        defer(take_note, 3, random.Random(1).randbytes(2_000_000), _atomic=True)
        startTask("refuse")
    return HttpResponse("started")


urlpatterns = [
    path("visit/", visit, name="visit"),
    path("remember/", remember, name="remember"),
    path("refuse/", refuse, name="refuse"),
    path("start-visit/", csrf_exempt(start_visit)),
    path("start-some/", csrf_exempt(start_some)),
    path("_tasks/", include("soc_tasks.urls")),
]
