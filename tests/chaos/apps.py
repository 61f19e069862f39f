"""The app of the tables that show what happened."""

from __future__ import annotations

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """Models without migrations: `migrate --run-syncdb` makes their tables."""

    name = "tests.chaos"
    label = "chaos"
    default_auto_field = "django.db.models.BigAutoField"
