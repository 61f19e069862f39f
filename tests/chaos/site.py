"""The views under chaos: each counts how often it saw a row."""

from __future__ import annotations

from django.db.models import F
from django.urls import path

from soc_tasks import iterative_task
from tests.chaos.site_constants import BATCH
from tests.specimen.models import Row


def _count(entities):
    Row.objects.filter(pk__in=[row.pk for row in entities]).update(hits=F("hits") + 1)


@iterative_task(Row, atomic=True, batch_size=BATCH, time_limit=0.05)
def count_atomic(request, entities):
    _count(entities)


@iterative_task(Row, batch_size=BATCH, time_limit=0.05)
def count_leased(request, entities):
    _count(entities)


urlpatterns = [
    path("atomic/", count_atomic, name="atomic"),
    path("leased/", count_leased, name="leased"),
]
