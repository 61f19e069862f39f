"""`repeatTask(countdown)` where the queue does not go by the countdown: the task is queued again, as a copy."""

from __future__ import annotations

import dataclasses
import logging
import math
from datetime import timedelta

from django.http import HttpRequest

from soc_tasks.backends import get_backend
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.meta import Meta
from soc_tasks.values import MAX_SECONDS, META_HEADER, TaskInfo
from soc_tasks.views import responses
from soc_tasks.views.intake import rebuild_task
from soc_tasks.views.responses import Outcome

logger = logging.getLogger("soc_tasks")


def queue_again(request: HttpRequest, info: TaskInfo, countdown: str) -> Outcome:
    """Queue a copy of a task, due in `countdown` seconds, that goes on counting its attempts.

    Its name is made of the start id and the attempt: where the answer to this call is lost and it comes again, there is
    one copy all the same. If none can be queued, the task comes again by the queue's backoff.
    """
    attempts = info.retry_count + 1
    try:
        seconds = float(countdown)
        if not (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS):
            raise ValueError(f"{countdown!r} is no countdown")
        meta = Meta.from_header(request.headers.get(META_HEADER, ""))
        task = rebuild_task(request, info)
        now = get_backend().now()
        header = dataclasses.replace(meta, tried=attempts, since=round(meta.began, 3)).to_header()
        copy = dataclasses.replace(
            task,
            name=f"{info.start_id}-{attempts}",
            headers={**task.headers, META_HEADER: header},
            eta=now + timedelta(seconds=seconds),
            created=now,
        )
        get_backend().submit([copy])
    except TaskAlreadyExistsError:
        logger.debug("the copy of task %s after attempt %d was there already", info.name, attempts)
    except Exception:
        logger.exception("task %s could not be queued again; it is tried again by the backoff of its queue", info.name)
        return responses.RETRY
    return responses.HANDED_OVER
