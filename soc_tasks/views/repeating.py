"""Tasks that are queued again, as copies, where the queue knows neither countdowns nor waiting: on Cloud Tasks."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from datetime import timedelta
from typing import Any, Final

from django.http import HttpRequest

from soc_tasks.backends import get_backend
from soc_tasks.engine.backoff import unknown_delay
from soc_tasks.errors import TaskAlreadyExistsError
from soc_tasks.meta import Meta
from soc_tasks.values import MAX_SECONDS, META_HEADER, TaskInfo
from soc_tasks.views import responses
from soc_tasks.views.intake import read_header, rebuild_task
from soc_tasks.views.responses import Outcome

logger = logging.getLogger("soc_tasks")


#: Seconds for which a task waits for a release that knows what it calls, as in the engine.
RELEASE_WITHIN: Final = 86400


def queue_again(request: HttpRequest, info: TaskInfo, countdown: str) -> Outcome:
    """Queue a copy of a task, due in `countdown` seconds, that goes on counting its attempts.

    Its name is made of the start id, the attempt and the time from which its attempts count, lest a letter that is
    retried meets the names that its copies had: where the answer to this call is lost and it comes again, there is
    one copy all the same. If none can be queued, the task comes again by the queue's backoff.
    """
    attempts = info.retry_count + 1
    try:
        seconds = float(countdown)
        if not (math.isfinite(seconds) and 0 <= seconds <= MAX_SECONDS):
            raise ValueError(f"{countdown!r} is no countdown")
    except ValueError:
        logger.exception("task %s cannot be queued again; it is tried again by the backoff of its queue", info.name)
        return responses.RETRY
    return _queue_copy(request, info, str(attempts), seconds, tried=attempts)


def queue_for_release(request: HttpRequest, info: TaskInfo) -> Outcome | None:
    """Queue a copy of a task that no release here knows, with as many attempts as it had; None: it waited for a day."""
    now, meta = time.time(), read_header(request)
    since = meta.unknown_since if meta is not None and meta.unknown_since is not None else now
    if now - since >= RELEASE_WITHIN:
        return None
    waits = 1 + (meta.waits if meta is not None else 0)
    changes = {"tried": info.retry_count, "unknown_since": round(since, 3), "waits": waits}
    return _queue_copy(request, info, f"w{waits}", unknown_delay(now - since), **changes)


def _queue_copy(request: HttpRequest, info: TaskInfo, number: str, seconds: float, **changes: Any) -> Outcome:
    """Queue a copy under a name that is the same whenever this is tried."""
    name = f"{info.start_id}-{number}"
    try:
        meta = Meta.from_header(request.headers.get(META_HEADER, ""))
        if meta.since is not None:
            name = f"{info.start_id}-{round(meta.since * 1000)}-{number}"
        task = rebuild_task(request, info)
        now = get_backend().now()
        header = dataclasses.replace(meta, since=round(meta.began, 3), **changes).to_header()
        copy = dataclasses.replace(
            task,
            name=name,
            headers={**task.headers, META_HEADER: header},
            eta=now + timedelta(seconds=seconds),
            created=now,
        )
        get_backend().submit([copy])
    except TaskAlreadyExistsError:
        logger.debug("the copy %s of task %s was there already", name, info.name)
    except Exception:
        logger.exception("task %s could not be queued again; it is tried again by the backoff of its queue", info.name)
        return responses.RETRY
    return responses.HANDED_OVER
