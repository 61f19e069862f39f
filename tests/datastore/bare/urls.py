"""Its views: an iteration over a kind, a task, deferred calls, and ordinary views that start them in a transaction."""

from __future__ import annotations

import random

from django.http import HttpResponse, JsonResponse
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


@iterative_task(DatastoreLogic("Counter"), atomic=True, batch_size=10)
def look(request, entities):
    pass


@iterative_task(DatastoreLogic("Counter"), batch_size=10)
def look_leased(request, entities):
    pass


@iterative_task(DatastoreLogic("Counter"), atomic=True, batch_size=10, shards=2)
def look_in_two(request, entities):
    pass


@iterative_task(DatastoreLogic("Counter"), atomic=True, batch_size=10, shards=4)
def look_in_four(request, entities):
    pass


@task(atomic=True)
def do_nothing(request):
    pass


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


def start_one(request, name):
    """Start a task, in a transaction or not."""
    client = get_client()
    if "transaction" in request.GET:
        with client.transaction():
            handle = startTask(name, using=client)
    else:
        handle = startTask(name)
    return HttpResponse(handle.iteration or handle.name)


def take_bill(request):
    from tests.datastore.bare import counted

    return JsonResponse(counted.take())


urlpatterns = [
    *(path(f"{view.__name__}/", view, name=view.__name__) for view in (look, look_leased, look_in_two, look_in_four)),
    path("do_nothing/", do_nothing, name="do_nothing"),
    path("start-one/<name>/", start_one),
    path("bill/", take_bill),
    path("visit/", visit, name="visit"),
    path("remember/", remember, name="remember"),
    path("refuse/", refuse, name="refuse"),
    path("start-visit/", csrf_exempt(start_visit)),
    path("start-some/", csrf_exempt(start_some)),
    path("_tasks/", include("soc_tasks.urls")),
]
