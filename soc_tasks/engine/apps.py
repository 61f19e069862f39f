"""The embedded engine's Django app: its tables, and the worker inside `manage.py runserver`."""

from __future__ import annotations

from django.apps import AppConfig


class EngineConfig(AppConfig):
    """The embedded engine."""

    name = "soc_tasks.engine"
    label = "soc_tasks_engine"
    verbose_name = "Task engine"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Start the worker of `runserver`, if this is the process that serves."""
        from soc_tasks.engine import runserver

        runserver.start_if_serving()
