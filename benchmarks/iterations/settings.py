"""A site for iterations, on the database that the environment names."""

from __future__ import annotations

import os

from benchmarks.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.iterations.site"
INSTALLED_APPS = os.environ.get(
    "SOC_TASKS_BENCH_APPS", "django.contrib.contenttypes soc_tasks soc_tasks.engine benchmarks"
).split()
# Slices as long as behind gunicorn; everything else as it comes.
SOC_TASKS = {"SLICE_SECONDS": 25}
# For the peer that runs on Django's own tasks: at once, in the process that starts it, which costs it nothing.
TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
