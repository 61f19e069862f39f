"""A site without SQL, whose queue is in memory: what is measured is Datastore."""

from __future__ import annotations

SECRET_KEY = "benchmarks-only"
ALLOWED_HOSTS = ["localhost"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.datastore.writes"
MIDDLEWARE: list[str] = []
INSTALLED_APPS = ["soc_tasks"]
DATABASES: dict[str, dict[str, object]] = {}
# One slice, however slow the emulator.
SOC_TASKS = {"STATE": "datastore", "BACKEND": "memory", "SLICE_SECONDS": 3600, "LEASE_SECONDS": 600}
