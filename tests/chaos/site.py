"""The views under chaos: each leaves behind what it did."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

from django.db.models import F
from django.urls import include, path

from soc_tasks import iterative_task, task
from soc_tasks.logic import stealing
from tests.chaos.models import Effect, Row
from tests.chaos.site_constants import BATCH, END, SHARDS, SMALL_BATCH, TAKEN_OVER, TOMORROW

#: Where the orphans' tasks tell who runs them (a descriptor), and remember that they ran before (a directory).
notes: int | None = None
memory: Path | None = None


stealing.LEAST_SECONDS, stealing.LEAST_BATCHES = 0.0, 1
_move = stealing._move


def _note_move(*args):
    # In the transaction that gives the part to its new shard.
    Effect.objects.create(number=TAKEN_OVER)
    _move(*args)


stealing._move = _note_move


def _count(entities):
    Row.objects.filter(pk__in=[row.pk for row in entities]).update(hits=F("hits") + 1)


# An iteration that ends starts itself again, tomorrow, in the transaction that ends it: so its ends can be counted.


@iterative_task(Row, TOMORROW, atomic=True, batch_size=BATCH, time_limit=0.15)
def count_atomic(request, entities):
    _count(entities)


@iterative_task(Row, TOMORROW, batch_size=BATCH, time_limit=0.15)
def count_leased(request, entities):
    _count(entities)


# One batch a slice: as many moments to die in as there can be.


@iterative_task(Row, TOMORROW, atomic=True, batch_size=SMALL_BATCH, time_limit=1e-6)
def step_atomic(request, entities):
    _count(entities)


@iterative_task(Row, TOMORROW, batch_size=SMALL_BATCH, time_limit=1e-6)
def step_leased(request, entities):
    _count(entities)


# In shards, each of which ends its slices by the setting.


@iterative_task(Row, shards=SHARDS, finalize="end", atomic=True, batch_size=BATCH)
def shards_atomic(request, entities):
    _count(entities)


@iterative_task(Row, shards=SHARDS, finalize="end", batch_size=BATCH)
def shards_leased(request, entities):
    _count(entities)


@task(atomic=True, max_attempts=-1)
def end(request):
    end_once()


def end_once():
    """Be the finalize of a deferred iteration."""
    Effect.objects.create(number=END)


def count_one(row):
    """Be the callback of a deferred iteration."""
    Row.objects.filter(pk=row.pk).update(hits=F("hits") + 1)


def lopsided(queryset, shard_count):
    """Give two thirds of the rows to the first shard, which must not hold up the others."""
    keys = list(queryset.order_by("pk").values_list("pk", flat=True))
    if len(keys) < shard_count:
        return [(None, None)]
    first = len(keys) * 2 // 3
    rest = len(keys) - first
    starts = [first + rest * number // (shard_count - 1) for number in range(shard_count - 1)]
    bounds = [None, *(keys[start] for start in starts), None]
    return list(itertools.pairwise(bounds))


def _count_others(entities):
    """Fail for one of five rows that follow each other, before anything of its batch is counted."""
    if any(row.pk % 5 == 3 for row in entities):
        raise ArithmeticError
    _count(entities)


@iterative_task(Row, TOMORROW, atomic=True, batch_size=SMALL_BATCH, time_limit=1e-6, on_error="skip")
def skip_atomic(request, entities):
    _count_others(entities)


@iterative_task(Row, TOMORROW, batch_size=SMALL_BATCH, time_limit=1e-6, on_error="skip")
def skip_leased(request, entities):
    _count_others(entities)


@task(atomic=True, max_attempts=-1)
def leave_effect(request):
    Effect.objects.create(number=request.task.context["number"])


def leave_effect_on(alias, number):
    """Be deferred."""
    Effect.objects.using(alias).create(number=number)


@task(atomic=True, max_attempts=-1)
def stumble(request):
    """Fail three times, having written."""
    Effect.objects.create(number=1)
    for number in range(3):
        if _is_first(f"stumbled-{number}"):
            raise ArithmeticError


@task(max_attempts=-1)
def hold(request):
    """Say who runs it; the first time, never end."""
    name = request.task.context["name"]
    first = _is_first(name)
    os.write(notes, f"{name} {os.getpid()}\n".encode())
    if first:
        threading.Event().wait()


def _is_first(name):
    try:
        (memory / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


urlpatterns = [
    path("_tasks/", include("soc_tasks.urls")),
    path("atomic/", count_atomic, name="atomic"),
    path("leased/", count_leased, name="leased"),
    path("step-atomic/", step_atomic, name="step-atomic"),
    path("step-leased/", step_leased, name="step-leased"),
    path("shards-atomic/", shards_atomic, name="shards-atomic"),
    path("shards-leased/", shards_leased, name="shards-leased"),
    path("end/", end, name="end"),
    path("skip-atomic/", skip_atomic, name="skip-atomic"),
    path("skip-leased/", skip_leased, name="skip-leased"),
    path("effect/", leave_effect, name="effect"),
    path("stumble/", stumble, name="stumble"),
    path("hold/", hold, name="hold"),
]
