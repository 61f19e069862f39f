"""URL patterns of the library's own views: `path("_tasks/", include("soc_tasks.urls"))`."""

from __future__ import annotations

from django.urls import URLPattern, path

from soc_tasks.views.deferred import deferred
from soc_tasks.views.deferred_iterations import deferred_iteration
from soc_tasks.views.metrics import metrics, overview
from soc_tasks.views.progress import progress
from soc_tasks.views.relaying import relay

urlpatterns: list[URLPattern] = [
    path("deferred/", deferred, name="tasks_deferred_handler"),
    path("deferred-iteration/", deferred_iteration, name="tasks_deferred_iteration_handler"),
    path("metrics/", metrics, name="tasks_metrics"),
    path("overview/", overview, name="tasks_overview"),
    path("progress/<str:token>/", progress, name="tasks_progress"),
    path("relay/", relay, name="tasks_relay"),
]
