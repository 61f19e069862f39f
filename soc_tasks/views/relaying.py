"""The relay by URL, for sites without a process that runs all the time: Cloud Scheduler or cron calls it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from soc_tasks.logic.upkeep import look_after
from soc_tasks.views.access import task_only


@task_only
def relay(request: HttpRequest) -> HttpResponse:
    """Hand on what waits in the outboxes, queue stuck iterations anew, forget what is old; queue and cron only."""
    look_after()
    return HttpResponse()
