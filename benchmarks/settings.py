"""A site with one task and no middleware, on a SQLite file in WAL mode with synchronous=NORMAL."""

from __future__ import annotations

import os

SECRET_KEY = "benchmarks-only"
DEBUG = False
USE_TZ = True
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "benchmarks.site"
MIDDLEWARE: list[str] = []
INSTALLED_APPS = ["soc_tasks", "soc_tasks.engine", "benchmarks"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SOC_TASKS_BENCH_DATABASE"],
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
SOC_TASKS = {"BACKEND": os.environ.get("SOC_TASKS_BENCH_BACKEND", "embedded"), "URL": "https://site.example"}
