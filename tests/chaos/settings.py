"""A site for processes that get killed, on the databases that the environment names; its queue may misbehave."""

from __future__ import annotations

import json
import os

SECRET_KEY = "tests-only-tests-only-tests-only-tests-only-tests-only"
USE_TZ = True
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "tests.chaos.site"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "soc_tasks",
    "soc_tasks.engine",
    "tests.chaos",
]
MIDDLEWARE = []
DATABASES = json.loads(os.environ["SOC_TASKS_CHAOS_DATABASES"])
SOC_TASKS = {"LEASE_SECONDS": float(os.environ.get("SOC_TASKS_CHAOS_LEASE", "1.0"))}
if "SOC_TASKS_CHAOS_SLICE" in os.environ:
    SOC_TASKS["SLICE_SECONDS"] = float(os.environ["SOC_TASKS_CHAOS_SLICE"])
    CLOUD_TASKS_QUEUES = [{"name": "default", "retry_max_attempts": -1}]
if "SOC_TASKS_CHAOS_FAULTS" in os.environ:
    SOC_TASKS["BACKEND"] = "tests.chaos.transport.FaultyBackend"
if "SOC_TASKS_CHAOS_BACKEND" in os.environ:
    SOC_TASKS["BACKEND"] = os.environ["SOC_TASKS_CHAOS_BACKEND"]
    CLOUD_TASKS_PROJECT_ID, CLOUD_TASKS_LOCATION = "school", "europe-west1"
if "SOC_TASKS_CHAOS_SERVED" in os.environ:
    # Beside `tasks serve`: how the site in a sandbox is set.
    SOC_TASKS |= json.loads(os.environ["SOC_TASKS_CHAOS_SERVED"])
    ALLOWED_HOSTS = [*ALLOWED_HOSTS, "127.0.0.1"]
