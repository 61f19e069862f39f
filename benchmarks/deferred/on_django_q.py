"""django-q2 with its ORM broker on SQLite, fetching 50 at a time and saving no results, which is its fastest."""

from __future__ import annotations

from benchmarks.deferred.contender import Figures, measure_deferring, measure_run, python, set_up_django
from benchmarks.deferred.work import noop


def measure(count: int) -> Figures:
    """Return the rates."""
    set_up_django("benchmarks.deferred.settings", "django_q")
    from django_q.tasks import async_task

    figures = measure_deferring(count, lambda number, address: async_task(noop, number, address))
    return figures | measure_run(count, python("-m", "django", "qcluster", "-v", "0"))
