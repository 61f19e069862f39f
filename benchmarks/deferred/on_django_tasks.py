"""django-tasks with its database backend (django-tasks-db) on SQLite, two workers."""

from __future__ import annotations

from benchmarks.deferred.contender import Figures, measure_deferring, measure_run, python, set_up_django


def measure(count: int) -> Figures:
    """Return the rates."""
    set_up_django("benchmarks.deferred.settings", "django_tasks", "django_tasks_db")
    from benchmarks.deferred.django_tasks_work import call

    figures = measure_deferring(count, call.enqueue)
    worker = python("-m", "django", "db_worker", "-v", "0", "--no-startup-delay")
    return figures | measure_run(count, worker, worker)
