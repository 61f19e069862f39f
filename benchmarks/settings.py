"""A site with one task, on the database that the environment names: without middleware, or with startproject's."""

from __future__ import annotations

import os

from benchmarks.databases import read_entry

#: What `startproject` writes, without the admin.
_CONTRIB = [f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions", "messages", "staticfiles")]
_MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
_STARTED = os.environ.get("SOC_TASKS_BENCH_SITE") == "startproject"

SECRET_KEY = "benchmarks-only"
DEBUG = False
USE_TZ = True
ALLOWED_HOSTS = ["localhost"]
ROOT_URLCONF = "benchmarks.site"
STATIC_URL = "static/"
MIDDLEWARE = _MIDDLEWARE if _STARTED else []
INSTALLED_APPS = [*(_CONTRIB if _STARTED else []), "soc_tasks", "soc_tasks.engine", "benchmarks"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": read_entry()}
SOC_TASKS = {"BACKEND": os.environ.get("SOC_TASKS_BENCH_BACKEND", "embedded"), "URL": "https://site.example"}
