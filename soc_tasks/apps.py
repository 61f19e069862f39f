"""The library's Django app: ready() registers checks and hooks, nothing more."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.core.signals import request_started


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
        # A process serves from its first request on, after any fork; commands never do.
        request_started.connect(_begin_to_serve, dispatch_uid="soc_tasks.apps")


def _begin_to_serve(**_: Any) -> None:
    request_started.disconnect(dispatch_uid="soc_tasks.apps")
    from soc_tasks.conf import get_settings

    if get_settings().backend == "cloud_tasks":
        from soc_tasks.backends.cloud_tasks.queues import update_in_background

        update_in_background()


def _reissue_stuck() -> None:
    from soc_tasks.logic.upkeep import reissue_stuck

    reissue_stuck()
