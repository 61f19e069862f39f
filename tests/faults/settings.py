"""A site in processes of its own, on the database that the environment names."""

from __future__ import annotations

import json
import os

SECRET_KEY = "tests-only-tests-only-tests-only-tests-only-tests-only"
USE_TZ = True
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "tests.faults.site"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "soc_tasks",
    "soc_tasks.engine",
    "tests.specimen",
]
MIDDLEWARE = []
DATABASES = {"default": json.loads(os.environ["FAULTS_DATABASE"])}
SOC_TASKS = {"LEASE_SECONDS": float(os.environ.get("FAULTS_LEASE", "1.0"))}
