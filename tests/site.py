"""Task views of the test site. What a view does is given by the test: `behaviours["name"] = function`."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from soc_tasks import (
    from_cron,
    from_queue,
    has_permission,
    iterative_task,
    staff,
    superuser,
    task,
    task_only,
    task_or_superuser_only,
)
from tests.specimen.models import Entry, Row

#: What `behave` and `iterate` do; tests fill it, a fixture empties it.
behaviours: dict[str, Any] = {}
#: The calls that reached a view, in order.
calls: list[Any] = []


def _act(name: str, request: Any, **kwargs: Any) -> Any:
    calls.append((name, request, kwargs))
    behaviour = behaviours.get(name)
    return None if behaviour is None else behaviour(request, **kwargs)


@task
def behave(request, slug="none"):
    return _act("behave", request, slug=slug)


@task(atomic=True)
def behave_atomic(request):
    return _act("behave_atomic", request)


@task(fatal_on=(KeyError, ZeroDivisionError), max_attempts=3)
def behave_picky(request):
    return _act("behave_picky", request)


@task(access=from_queue | superuser)
def for_superusers(request):
    return _act("for_superusers", request)


@task(access=staff & has_permission("specimen.change_entry"))
def for_staff(request):
    return _act("for_staff", request)


@task(access=from_cron)
def for_cron(request):
    return _act("for_cron", request)


@iterative_task
def early(request, entities):
    return _act("iterate", request, entities=entities)


@iterative_task(Entry, order="pk", batch_size=10)
def iterate(request, entities, context, slug=None):
    return _act("iterate", request, entities=entities, context=context)


@iterative_task(Entry, batch_size=10, atomic=True)
def iterate_atomic(request, entities, context):
    return _act("iterate", request, entities=entities, context=context)


@iterative_task(Entry, repeat_in=60, batch_size=10)
def iterate_again(request, entities, context):
    return _act("iterate", request, entities=entities, context=context)


@iterative_task(Entry, batch_size=10, time_limit=1e-9, access=from_queue | superuser)
def iterate_slowly(request, entities, context):
    return _act("iterate", request, entities=entities, context=context)


@iterative_task(Row, batch_size=10)
def rows(request, entities):
    return _act("iterate", request, entities=entities)


@iterative_task(Row, batch_size=5, shards=4)
def rows_in_shards(request, entities):
    return _act("iterate", request, entities=entities)


class Methods:
    """Views that are methods, decorated inside the class and outside of it."""

    def plain(self, request, slug):
        return _act("method", request, slug=slug, self=self)

    @task
    def decorated(self, request, slug):
        return _act("method", request, slug=slug, self=self)

    @iterative_task(Entry)
    def iterating(self, request, entities, slug):
        return _act("iterate", request, entities=entities, slug=slug)


methods = Methods()
bound = task(methods.plain)


def ordinary(request):
    calls.append(("ordinary", request, {}))
    return HttpResponse("hello")


@task_only
def guarded(request):
    return ordinary(request)


@task_or_superuser_only
def guarded_or_superuser(request):
    return ordinary(request)
