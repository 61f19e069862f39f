"""Plain views for the engine's tests: the engine knows POSTs only."""

from __future__ import annotations

from django.urls import path

from tests.engine import views

urlpatterns = [
    path("noop", views.noop),
    path("count", views.count),
    path("answer/<int:status>", views.answer),
    path("busy", views.busy),
    path("looks", views.looks),
    path("wait", views.wait),
    path("suicide", views.suicide),
    path("crash", views.crash),
    path("leave", views.leave),
]
