"""The library's Django app: ready() registers checks and hooks, nothing more."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class SocTasksConfig(AppConfig):
    """Tasks as ordinary views."""

    name = "soc_tasks"
    verbose_name = "Tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and what a worker looks after from time to time."""
        import_module("soc_tasks.checks")
        hooks = import_module("soc_tasks.engine.hooks")
        hooks.register(upkeep=_reissue_stuck)


def _reissue_stuck() -> None:
    from soc_tasks.logic.upkeep import reissue_stuck

    reissue_stuck()
