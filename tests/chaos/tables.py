"""The tables under chaos: made, emptied, filled, counted. `python -m tests.chaos.tables` makes them."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta

import django

#: What has tables on each alias.
APPS = ("soc_tasks_engine", "soc_tasks", "chaos")


def create():
    """Make the tables on every alias."""
    from django.core.management import call_command
    from django.db import connections

    for alias in connections:
        call_command("migrate", database=alias, run_syncdb=True, verbosity=0)


def clear(rows=0):
    """Empty all tables, and put rows there to iterate over."""
    from django.apps import apps
    from django.db import connections, transaction

    from tests.chaos.models import Row

    for alias in connections:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            for app in APPS:
                # Children come after their parents.
                for model in reversed(list(apps.get_app_config(app).get_models())):
                    if model._meta.managed:
                        cursor.execute(f"DELETE FROM {model._meta.db_table}")
    Row.objects.bulk_create((Row() for _ in range(rows)), batch_size=500)


def count_repeated(values):
    """Return how many of the values are there once too often."""
    return sum(number - 1 for number in Counter(values).values())


def report():
    """Count what was lost and doubled of the one iteration, how often it ended, and what is left in the queue."""
    from soc_tasks.backends import get_backend

    soon = datetime.now(UTC) + timedelta(hours=1)
    tasks = [record.task for record in get_backend().list_tasks(limit=10_000)]
    repeats = {task.start_id for task in tasks if task.eta is not None and task.eta > soon}
    left = sum(task.start_id not in repeats for task in tasks)
    return {**count_rows(), "ends": len(repeats), "left": left}


def count_rows():
    """Count what was lost and doubled of the one iteration."""
    from django.db.models import F, Sum

    from soc_tasks import Iteration
    from soc_tasks.models import IterationRow
    from soc_tasks.state import get_state
    from tests.chaos.models import Row

    iterations = Iteration.all()
    return {
        "status": ",".join(iteration.status for iteration in iterations),
        "unfinished": sum(IterationRow.objects.values_list("unfinished", flat=True)),
        "done": sum(iteration.done for iteration in iterations),
        "lost": Row.objects.filter(hits=0).count(),
        "doubled": Row.objects.filter(hits__gt=1).aggregate(more=Sum(F("hits") - 1))["more"] or 0,
        "letters": len(get_state().list_dead_letters()),
    }


if __name__ == "__main__":
    django.setup()
    create()
    sys.exit(0)
