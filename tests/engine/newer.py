"""The URLs of a newer release: it has a view more."""

from __future__ import annotations

from django.urls import path

from tests.engine import urls, views

urlpatterns = [*urls.urlpatterns, path("new", views.count)]
