"""The tasks that are measured."""

from __future__ import annotations

from django.http import HttpRequest
from django.urls import include, path

from benchmarks import marks
from soc_tasks import task


@task
def noop(request: HttpRequest) -> None:
    """Say that it ran."""
    marks.hit()


urlpatterns = [
    path("noop/", noop, name="noop"),
    path("_tasks/", include("soc_tasks.urls")),
]
