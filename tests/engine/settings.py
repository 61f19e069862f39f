"""A site in processes of its own, on the database file that the environment names."""

from __future__ import annotations

import os

SECRET_KEY = "tests-only-tests-only-tests-only-tests-only-tests-only"
USE_TZ = True
DEBUG = os.environ.get("ENGINE_DEBUG") == "1"
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = os.environ.get("ENGINE_URLS", "tests.engine.urls")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "soc_tasks", "soc_tasks.engine"]
MIDDLEWARE = []
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["ENGINE_DATABASE"],
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": float(os.environ.get("ENGINE_TIMEOUT", "20")),
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
SOC_TASKS = {
    "BACKEND": os.environ.get("ENGINE_BACKEND", "embedded"),
    "LEASE_SECONDS": float(os.environ.get("ENGINE_LEASE", "0.5")),
    "RUNSERVER": os.environ.get("ENGINE_RUNSERVER", "1") == "1",
}
if os.environ.get("ENGINE_LOGGING") == "1":
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"mine": {"format": "site: %(message)s"}},
        "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
        "loggers": {"soc_tasks": {"handlers": ["mine"], "level": "INFO"}},
    }
