"""A site for the peers that need Django: no middleware, SQLite in WAL mode with synchronous=NORMAL, as ours has."""

from __future__ import annotations

import os

SECRET_KEY = "benchmarks-only"
DEBUG = False
USE_TZ = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "benchmarks.deferred.emulated_site"
MIDDLEWARE: list[str] = []
INSTALLED_APPS = ["django.contrib.contenttypes", *os.environ.get("SOC_TASKS_BENCH_APPS", "").split()]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SOC_TASKS_BENCH_DATABASE"],
        # By Django's default both peers connect anew for every task, which is slower.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
# By its defaults it takes one at a time and keeps 250 results, and runs an eighth as much.
Q_CLUSTER = {
    "orm": "default",
    "workers": 2,
    "bulk": 50,
    "queue_limit": 200,
    "save_limit": -1,
    "timeout": 60,
    "retry": 120,
    "log_level": "ERROR",
}
