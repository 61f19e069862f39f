"""Settings of a site whose only database is Google's Datastore, to copy from.

Without users there is no admin: whoever reaches the site may press its button. On App Engine, put Identity-Aware Proxy
before it. What differs from machine to machine comes from the environment:

    SECRET_KEY           signs the library's own messages; the same in all processes
    TASKS_LEASE_SECONDS  SOC_TASKS["LEASE_SECONDS"]
    TASKS_SLICE_SECONDS  SOC_TASKS["SLICE_SECONDS"]

and, where there is no Google: TASKS_EMULATOR_HOST and DATASTORE_EMULATOR_HOST.
"""

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "")  # Django refuses an empty one
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "examples.gazetteer_datastore.urls"
INSTALLED_APPS = ["soc_tasks", "examples.gazetteer_datastore"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
USE_TZ = True

DATABASES: dict[str, dict[str, object]] = {}

CLOUD_TASKS_PROJECT_ID = os.environ.get("GOOGLE_CLOUD_PROJECT", "demo")
CLOUD_TASKS_LOCATION = "europe-west1"

SOC_TASKS: dict[str, object] = {
    "BACKEND": "cloud_tasks",
    "STATE": "datastore",
    "LEASE_SECONDS": float(os.environ.get("TASKS_LEASE_SECONDS", "30")),
    "SLICE_SECONDS": float(os.environ.get("TASKS_SLICE_SECONDS", "0")) or None,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"soc_tasks": {"handlers": ["console"], "level": "INFO"}},
}
