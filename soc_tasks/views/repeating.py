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
from soc_tasks.meta import Meta, SliceMessage
from soc_tasks.state import get_state
from soc_tasks.state.base import ShardBusyError
from soc_tasks.values import MAX_SECONDS, META_HEADER, TaskInfo
from soc_tasks.views import responses
from soc_tasks.views.headers import get_header, read_header
from soc_tasks.views.intake import rebuild_task
from soc_tasks.views.responses import Outcome

logger = logging.getLogger("soc_tasks")


#: Seconds for which a task waits for a release that knows what it calls, as in the engine.
RELEASE_WITHIN: Final = 86400
#: Seconds before a copy of a task comes that others are in the way of, where nobody can tell how long they are: doubled
#: each time from the first to the second of these.
BUSY_WAITS: Final = (0.5, 30.0)


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
    changes: dict[str, Any] = {"tried": info.retry_count, "unknown_since": round(since, 3), "waits": waits}
    return _queue_copy(request, info, f"w{waits}", unknown_delay(now - since), **changes)


def queue_when_free(request: HttpRequest, info: TaskInfo, free_in: float | None) -> Outcome:
    """Queue a copy of a task that others are in the way of, with as many attempts as it had: this was none.

    The one that holds a shard may be a delivery of this same task, which is deleted by the answer 200: the copy is what
    goes on where that one is killed. Each delivery makes one copy at most, and only the first of those under a name.

    Args:
        request, info: the delivery.
        free_in: seconds after which they are out of the way; None: nobody can tell.
    """
    meta = read_header(request)
    if meta is None:
        return responses.BUSY
    shortest, longest = BUSY_WAITS
    seconds = min(shortest * 2 ** min(meta.busy, 30), longest) if free_in is None else max(free_in, 0.0)
    changes = {"tried": info.retry_count, "busy": meta.busy + 1}
    # A transaction that holds the shard would meet the note; where there is a lease there is none.
    queued = _queue_copy(request, info, f"b{meta.busy + 1}", seconds, is_noted=free_in is not None, **changes)
    return responses.PUT_OFF if queued is responses.HANDED_OVER else responses.BUSY


def _queue_copy(
    request: HttpRequest, info: TaskInfo, number: str, seconds: float, *, is_noted: bool = True, **changes: Any
) -> Outcome:
    """Queue a copy under a name that is the same whenever this is tried."""
    name = f"{info.start_id}-{number}"
    try:
        meta = Meta.from_header(get_header(request))
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
    if meta.slice is not None and is_noted:
        _note_copy(meta.slice, name)
    return responses.HANDED_OVER


def _note_copy(message: SliceMessage, name: str) -> None:
    """Let it be known under which name a slice waits, for those who look whether it is lost."""
    try:
        get_state().note_task(message, name)
    except ShardBusyError:
        # Somebody is at work on it. If that one is killed, and this copy waits for long, one more may be queued.
        logger.debug("could not note the name %s of a slice of iteration %s", name, message.iteration)
    except Exception:
        # Of no weight either: the copy is there.
        logger.exception("could not note the name %s of a slice of iteration %s", name, message.iteration)
