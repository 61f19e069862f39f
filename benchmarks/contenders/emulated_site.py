"""The site that the emulator calls: it unpickles what it is sent, and calls it."""

from __future__ import annotations

import pickle

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def deferred(request: HttpRequest) -> HttpResponse:
    """Make a call."""
    function, args, kwargs = pickle.loads(request.body)
    function(*args, **kwargs)
    return HttpResponse()


urlpatterns = [path("_tasks/deferred/", deferred)]
application = get_wsgi_application()
