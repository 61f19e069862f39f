"""URLs of a view that does not care whether its worker wants to end."""

from __future__ import annotations

import threading

from django.contrib.auth.models import Group
from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from tests.engine.views import count


def stubborn(request):
    count(request)
    threading.Event().wait(120)
    return HttpResponse()


def hold(request):
    """Keep SQLite's write lock for good."""
    count(request)
    with transaction.atomic():
        Group.objects.create(name="held")
        threading.Event().wait(120)
    return HttpResponse()


urlpatterns = [path("stubborn", stubborn), path("hold", hold), path("count", count)]
