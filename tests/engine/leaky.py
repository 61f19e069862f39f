"""URLs of views that are hard on their process, for tests of its replacement."""

from __future__ import annotations

import threading

from django.http import HttpResponse
from django.urls import path

from soc_tasks.values import DELIVERY_KEY
from tests.engine.stubborn import stubborn
from tests.engine.views import count

kept: list[bytearray] = []


def leak(request):
    """Keep 4 MiB for good."""
    count(request)
    kept.append(bytearray(b"x") * (4 * 1024 * 1024))
    return HttpResponse()


def linger(request):
    """Answer well after the worker wants to end."""
    count(request)
    while not request.environ[DELIVERY_KEY].stopping():
        threading.Event().wait(0.01)
    threading.Event().wait(0.5)
    return HttpResponse()


urlpatterns = [
    path("leak", leak),
    path("linger", linger),
    path("count", count),
    path("stubborn", stubborn),
]
