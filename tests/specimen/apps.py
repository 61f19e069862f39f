"""The app of the models that tests iterate over."""

from __future__ import annotations

from django.apps import AppConfig


class SpecimenConfig(AppConfig):
    """Models without migrations: their tables are made with the test database."""

    name = "tests.specimen"
    label = "specimen"
    default_auto_field = "django.db.models.BigAutoField"
