"""The example apps run under the example project's own URL patterns, templates and queues."""

from __future__ import annotations

import django
import pytest

import settings_example


@pytest.fixture(autouse=True)
def example_project(settings):
    """Put the example project's settings, as far as its apps need them, over those of the tests."""
    settings.ROOT_URLCONF = settings_example.ROOT_URLCONF
    settings.TEMPLATES = settings_example.TEMPLATES
    settings.CLOUD_TASKS_QUEUES = settings_example.CLOUD_TASKS_QUEUES
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
