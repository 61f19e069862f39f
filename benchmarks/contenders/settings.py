"""A site for the peers that need Django, as ours but for the apps: without middleware, or with startproject's."""

from __future__ import annotations

import os

from benchmarks import settings
from benchmarks.databases import read_entry
from benchmarks.settings import *  # noqa: F403

ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "benchmarks.contenders.emulated_site"
_DJANGO = {app: None for app in ("django.contrib.contenttypes", *settings.INSTALLED_APPS) if app.startswith("django.")}
INSTALLED_APPS = [*_DJANGO, *os.environ.get("SOC_TASKS_BENCH_APPS", "").split()]
# By Django's default these peers connect anew for every task, which is slower.
DATABASES = {"default": {**read_entry(), "CONN_MAX_AGE": None}}
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
