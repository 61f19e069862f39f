"""How the whole thing is, for programs: the overview as JSON, and figures for Prometheus.

Both hold names of queues and of views, and numbers; nothing of what tasks carry. They are closed to everybody but those
whom SOC_TASKS["METRICS_ACCESS"] lets in, and who has the token SOC_TASKS["METRICS_TOKEN"].
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Final

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.http import require_safe

from soc_tasks.conf import get_settings
from soc_tasks.logic.overview import read_overview
from soc_tasks.views.access import Check, forbid, has_permission, staff, superuser
from soc_tasks.views.decorators import EveryAlias

logger = logging.getLogger("soc_tasks")

_SCHEME: Final = "bearer"


def _may_look(request: HttpRequest) -> bool:
    """Judge a request by its token if it brings one, else by its session."""
    settings = get_settings()
    if given := request.headers.get("Authorization"):
        scheme, _, token = given.partition(" ")
        wanted = settings.metrics_token
        return bool(wanted) and scheme.lower() == _SCHEME and constant_time_compare(token.strip(), str(wanted))
    access = settings.metrics_access
    if access is None:
        return False
    check = {"superuser": superuser, "staff": superuser | staff}.get(access)
    return (check or superuser | has_permission(access))(request)


#: Fails closed: what breaks while it judges lets nobody in.
may_look: Final = Check(_may_look, "metrics", takes_queue=False)


def _guarded(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    @login_not_required
    @require_safe
    @wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        response = view(request) if may_look(request) else forbid()
        response["Cache-Control"] = "no-store"
        return response

    # A look must not hold the database: with ATOMIC_REQUESTS on SQLite, each would wait for whoever writes.
    guarded._non_atomic_requests = EveryAlias()  # type: ignore[attr-defined]
    return guarded


@_guarded
def overview(request: HttpRequest) -> HttpResponse:
    """Return the overview as JSON."""
    return JsonResponse(read_overview().as_dict())


@_guarded
def metrics(request: HttpRequest) -> HttpResponse:
    """Return figures in Prometheus's text format; 501 where its library is not installed."""
    try:
        from soc_tasks.views.exposition import write_metrics
    except ImportError as error:
        message = "Metrics need prometheus-client: pip install 'soc-tasks[metrics]'."
        logger.error("%s (%s)", message, error)
        return HttpResponse(f"{message}\n", status=501, content_type="text/plain; charset=utf-8")
    text, content_type = write_metrics(read_overview())
    return HttpResponse(text, content_type=content_type)
