"""The URL patterns of the console in one admin site."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern

from soc_tasks.views.console import auditing, failures, iterations, overview, queues, starting, tasks
from soc_tasks.views.console.pages import Console

FAMILIES = (overview, queues, tasks, iterations, failures, starting, auditing)


def make_urls(admin_site: Any) -> list[URLPattern]:
    """Return the patterns of all pages."""
    console = Console(admin_site)
    return [pattern for family in FAMILIES for pattern in family.urls(console)]
