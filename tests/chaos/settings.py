"""A site on a SQLite file, whose queue doubles, delays and shuffles deliveries; made for processes that get killed."""

from __future__ import annotations

import os

from tests.settings import *  # noqa: F403

ROOT_URLCONF = "tests.chaos.site"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "soc_tasks",
    "soc_tasks.engine",
    "tests.specimen",
]
MIDDLEWARE = []
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SOC_TASKS_CHAOS_DATABASE"],
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
SOC_TASKS = {"BACKEND": "tests.chaos.transport.FaultyBackend", "LEASE_SECONDS": 1.0}
