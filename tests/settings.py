"""Settings of the test site: two databases, and the library as a site installs it."""

from __future__ import annotations

import json
import os

SECRET_KEY = "tests-only-tests-only-tests-only-tests-only-tests-only"
DEBUG = False
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
ALLOWED_HOSTS = ["testserver", "localhost"]
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "soc_tasks",
    "soc_tasks.engine",
    "django_htmx",
    "tests.specimen",
    "examples.email_students",
    "examples.gazetteer",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# On SQLite, or on the server that `python -m tests.servers` has started.
DATABASES = json.loads(os.environ.get("SOC_TASKS_TEST_DATABASES", "null")) or {
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
    for alias in ("default", "other")
}

# Fast, and safe where every account is made up.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
