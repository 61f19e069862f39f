"""A site under a strict policy, whose batches go on when the test says so."""

from __future__ import annotations

import threading

from django.http import HttpResponse
from django.template import Context, Template
from django.urls import include, path

from soc_tasks import get_deferred_shard_index, iterative_task

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'"
PAGE = """<!doctype html>
{% load soc_tasks static %}
<html lang="en"><head><meta charset="utf-8"><title>Progress</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
</head><body><main>{% for iteration in iterations %}{% iteration_progress iteration label=label %}{% endfor %}</main>
</body></html>
"""
LABEL = 'Mail for <script>alert(1)</script> & "friends"'
#: Seconds after which a batch gives up waiting for the test.
PATIENCE = 60


class Gate:
    """Lets batches pass one by one."""

    def __init__(self):
        self.permits, self.waiting = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self):
        self.waiting.release()
        assert self.permits.acquire(timeout=PATIENCE)

    def wait(self):
        """Wait until a batch stands before the gate."""
        assert self.waiting.acquire(timeout=PATIENCE)

    def open(self, number=1):
        """Let batches pass."""
        self.permits.release(number)


gate = Gate()


class Numbers:
    """Forty entities of nowhere, in batches of ten."""

    def __init__(self, counted=True):
        self.counted = counted

    def getBatchOfData(self, filter=None, start_key=None, batch_size=None):
        start = int(start_key or 0)
        return list(range(start, start + 10)), str(start + 10) if start < 30 else None

    def count(self, filter=None):
        return 40 if self.counted else None


@iterative_task(Numbers())
def work(request, entities):
    assert get_deferred_shard_index() == 0
    gate()


@iterative_task(Numbers(counted=False))
def work_uncounted(request, entities):
    gate()


def page(request):
    context = Context({"iterations": request.GET.getlist("iteration"), "label": LABEL})
    return HttpResponse(Template(PAGE).render(context))


def strict_policy(get_response):
    def middleware(request):
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


urlpatterns = [
    path("", page, name="page"),
    path("work/", work, name="work"),
    path("work-uncounted/", work_uncounted, name="work_uncounted"),
    path("_tasks/", include("soc_tasks.urls")),
]
