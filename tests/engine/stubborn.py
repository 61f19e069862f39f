"""URLs of a view that does not care whether its worker wants to end."""

from __future__ import annotations

import threading

from django.http import HttpResponse
from django.urls import path

from tests.engine.views import count


def stubborn(request):
    count(request)
    threading.Event().wait(120)
    return HttpResponse()


urlpatterns = [path("stubborn", stubborn), path("count", count)]
