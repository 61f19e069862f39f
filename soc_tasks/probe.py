"""Sends a task that does nothing through the site's middleware, to see whether one would stop real tasks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import wraps

from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch

from soc_tasks.engine.dispatch import InProcessDispatcher
from soc_tasks.values import Answer, Delivery, Task
from soc_tasks.views.decorators import task

#: What the probe is answered with where it comes through; no middleware makes this up.
ARRIVED = 204


@task
def _marked(request: HttpRequest) -> None:
    """Carry the marks of a task view, which exempt it from CSRF and login."""


@wraps(_marked)
def _probe(request: HttpRequest) -> HttpResponse:
    # Answers by itself: a check must not touch the database, as a task's own receipts and letters would.
    return HttpResponse(status=ARRIVED)


class _ProbeHandler(WSGIHandler):
    """Django's handler with its whole middleware, but with one view whatever the path."""

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        match = ResolverMatch(_probe, (), {})
        request.resolver_match = match
        return match


def send_probe() -> Answer:
    """Return what a task would be answered with; the status is `ARRIVED` where no middleware stops it."""
    # In a thread of its own, as a worker makes its calls: Django closes a thread's connections with each request, those
    # in a transaction as well.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_send).result()


def _send() -> Answer:
    dispatch = InProcessDispatcher(_ProbeHandler())
    task = Task(queue="default", name="probe", path="/soc_tasks/probe/")
    try:
        return dispatch(task, Delivery(queue="default", name="probe"))
    finally:
        connections.close_all()
