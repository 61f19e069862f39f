"""Arguments that hardly pack, and a look at the task that a call became."""

from __future__ import annotations

import random
import string

from django.http import QueryDict


def noise(number, seed=5):
    """Text that hardly packs."""
    return "".join(random.Random(seed).choices(string.ascii_letters + string.digits, k=number))


LARGE = noise(5000)


def queued(backend):
    """The one task that is queued."""
    [task] = backend.tasks_now()
    return task


def form(task):
    """What a task is POSTed with."""
    return QueryDict(task.body).dict()
