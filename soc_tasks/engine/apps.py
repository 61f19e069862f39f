"""The embedded engine's Django app: its tables, and the worker inside `manage.py runserver`."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured


class EngineConfig(AppConfig):
    """The embedded engine."""

    name = "soc_tasks.engine"
    label = "soc_tasks_engine"
    verbose_name = "Task engine"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Start the worker of `runserver`, if this is the process that serves.

        Raises:
            ImproperlyConfigured: the library's own app is missing, whose tables and commands the engine needs.
        """
        if not apps.is_installed("soc_tasks"):
            raise ImproperlyConfigured(
                'INSTALLED_APPS holds "soc_tasks.engine" but not "soc_tasks": put that before it, and run migrate.'
            )
        from soc_tasks.engine import runserver

        runserver.start_if_serving()
