"""Calls that the queue did not make: an admin's browser or cron starts a task, it does not run one."""

from __future__ import annotations

import logging

from django.core.exceptions import BadRequest, SuspiciousOperation
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError

from soc_tasks.backends import get_backend
from soc_tasks.errors import PayloadError, TaskTooLargeError
from soc_tasks.logic.tasks import build_task
from soc_tasks.values import TaskRequest
from soc_tasks.views import responses

#: What Django raises for a form that it does not read.
_UNREADABLE = (BadRequest, SuspiciousOperation, MultiPartParserError, UnreadablePostError)

logger = logging.getLogger("soc_tasks")


def start_from_outside(request: HttpRequest) -> HttpResponse:
    """Queue the task that a session or cron was let in to start: 202, or 400 for a form that cannot travel."""
    try:
        context = {
            key: values[0] if len(values) == 1 else list(values)
            for key, values in request.POST.lists()
            if key != "csrfmiddlewaretoken"
        }
        # Access was judged here and now; when the queue delivers the task there is no session to judge.
        task, _ = build_task(TaskRequest(url=request.get_full_path(), context=context), "default", admitted=True)
        get_backend().submit([task])
    except (*_UNREADABLE, PayloadError, TaskTooLargeError, ValueError) as error:
        logger.warning("a start of %s was refused: %s", request.path, error)
        return HttpResponse(status=400)
    return responses.STARTED.to_response()
