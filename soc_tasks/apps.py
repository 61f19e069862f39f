"""The library's Django app: ready() registers checks and hooks, nothing more."""

from __future__ import annotations

from django.apps import AppConfig


class SocTasksConfig(AppConfig):
    """Tasks as ordinary views."""

    name = "soc_tasks"
    verbose_name = "Tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
