"""Calls of Google Cloud Tasks, App Engine's cron and Cloud Scheduler: what proves them, and what their headers tell.

On App Engine its front end takes X-AppEngine-* headers off what comes from outside
(https://cloud.google.com/appengine/docs/standard/reference/request-headers), so that they prove a call: there, and
only there. Anywhere else a token proves it, and X-CloudTasks-* headers are read only after the token is proven.
"""

from __future__ import annotations

import logging
import os
import re
import time
from datetime import UTC, datetime
from typing import Final, NamedTuple

from django.http import HttpRequest

from soc_tasks.backends.cloud_tasks.wire import LONGEST_HTTP_DEADLINE
from soc_tasks.conf import Settings, get_queues, get_settings
from soc_tasks.engine.backoff import is_exhausted
from soc_tasks.engine.clock import SECOND, Clock, SystemClock
from soc_tasks.meta import Inherited, Meta
from soc_tasks.values import Delivery, RetryOptions
from soc_tasks.views.headers import read_header
from soc_tasks.views.oidc import GOOGLE_ISSUERS, KeysUnavailableError, TokenError, get_keys, read_email

logger = logging.getLogger("soc_tasks")

#: Seconds that an attempt may take where its task does not say: Cloud Tasks' default with HTTP targets, and on App
#: Engine with automatic scaling. With basic or manual scaling it is 24 hours there: give tasks a `dispatch_deadline`.
#: (cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues.tasks, dispatchDeadline)
DEFAULT_DEADLINE: Final = 600.0

#: The time by which tokens and attempts are judged.
clock: Clock = SystemClock()

_VERDICT: Final = "_soc_tasks_cloud"
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_MOMENT = re.compile(r"\d{1,11}(\.\d{1,20})?", re.ASCII)
_TASK_NAME = re.compile(r"[A-Za-z0-9_-]{1,500}")


class Verdict(NamedTuple):
    """Who is proven to have made a call.

    Args:
        delivery: what the queue told of its call, if it was the queue.
        is_cron: whether it was App Engine's cron or Cloud Scheduler.
        status: that of the refusal otherwise: 403, or 500 where it could not be judged.
    """

    delivery: Delivery | None = None
    is_cron: bool = False
    status: int = 403


_NOBODY: Final = Verdict()


def on_app_engine() -> bool:
    """Tell whether App Engine's front end stands before this process and strips forged headers."""
    settings = get_settings()
    return (
        settings.backend == "cloud_tasks"
        and settings.target == "app_engine"
        and os.environ.get("GAE_ENV") == "standard"
    )


def judge_cloud(request: HttpRequest) -> Verdict:
    """Return who is proven to have made a request; judged once."""
    verdict: Verdict | None = getattr(request, _VERDICT, None)
    if verdict is None:
        verdict = _judge(request)
        setattr(request, _VERDICT, verdict)
    return verdict


def _judge(request: HttpRequest) -> Verdict:
    if on_app_engine():
        queue = request.headers.get("X-AppEngine-QueueName", "")
        if queue in get_queues():
            return Verdict(_read_delivery(request, "X-AppEngine-", queue))
        if request.headers.get("X-Appengine-Cron") == "true":
            return Verdict(is_cron=True)
    settings = get_settings()
    return _judge_token(request, settings) if settings.backend == "cloud_tasks" else _NOBODY


def _judge_token(request: HttpRequest, settings: Settings) -> Verdict:
    """Judge a call by its token: whose it is, the queue's or cron's, is told by a header, and proven for either."""
    authorization = request.headers.get("Authorization", "")
    audience = settings.effective_audience
    queue = request.headers.get("X-CloudTasks-QueueName")
    if queue is None:
        account = settings.cron_service_account or settings.service_account
    else:
        account = settings.service_account if settings.target == "http" else None
    if not authorization.startswith("Bearer ") or not account or not audience:
        return _NOBODY
    try:
        email = read_email(
            authorization,
            issuers=GOOGLE_ISSUERS if settings.oidc_issuer in GOOGLE_ISSUERS else (settings.oidc_issuer,),
            audience=audience,
            keys=get_keys(settings.oidc_certs_url),
            now=clock.now() / SECOND,
        )
    except TokenError as error:
        logger.info("a call of %s is refused, by its token: %s", request.path, error)
        return _NOBODY
    except KeysUnavailableError as error:
        logger.error("a call of %s could not be judged, and may come again: %s", request.path, error)
        return Verdict(status=500)
    if email != account:
        logger.info("a call of %s is refused, by its token: it is another account's", request.path)
        return _NOBODY
    if queue is None:
        return Verdict(is_cron=True)
    if queue not in get_queues():
        logger.warning("a call of %s is refused: its queue is not in CLOUD_TASKS_QUEUES", request.path)
        return _NOBODY
    return Verdict(_read_delivery(request, "X-CloudTasks-", queue))


def _read_delivery(request: HttpRequest, prefix: str, queue: str) -> Delivery:
    """Return what the headers of a proven call tell; what cannot be read is unknown."""

    def told(name: str) -> str:
        return request.headers.get(prefix + name, "")

    meta = read_header(request)
    inherited = (meta.inherited if meta is not None else None) or Inherited()
    retry_count = _read_count(told("TaskRetryCount")) + (meta.tried if meta is not None else 0)
    # None: the queue's, whole.
    options = (inherited.retry or RetryOptions()).over(get_queues()[queue].retry)
    most = options.max_attempts or -1
    seconds = inherited.dispatch_deadline or DEFAULT_DEADLINE
    return Delivery(
        queue=queue,
        name=_read_name(told("TaskName"), meta),
        retry_count=retry_count,
        execution_count=_read_count(told("TaskExecutionCount")),
        eta=_read_moment(told("TaskETA")),
        previous_status=_read_status(told("TaskPreviousResponse")),
        is_last_attempt=is_exhausted(retry_count + 1, _find_first_attempt(meta, retry_count), clock.now(), options),
        # The service is asked for more attempts (SPARE_ATTEMPTS), and this is one. Where a duration limits the task as
        # well, it stops when both are passed: more attempts than `most` may be in order.
        is_overdue=0 < most <= retry_count and not options.max_retry_duration,
        takes_countdown=False,
        deadline=time.monotonic() + (min(seconds, LONGEST_HTTP_DEADLINE) if prefix == "X-CloudTasks-" else seconds),
    )


def _find_first_attempt(meta: Meta | None, retry_count: int) -> int:
    """Return when the first attempt began at the earliest, in microseconds.

    The service does not tell: the ETA of a retry is that of the retry (Task.schedule_time, google.cloud.tasks_v2). So
    it is when the task was due, or made. After a long wait in the queue, a limit of duration comes early by that: the
    task is kept as a dead letter then, where the service would drop it without a word.
    """
    now = clock.now()
    if retry_count == 0 or meta is None:
        return now
    return min(now, round(meta.began * SECOND))


def _read_name(text: str, meta: Meta | None) -> str:
    """Return the task's name; one that nobody chose travels the wrong way round (backends/cloud_tasks/wire.py)."""
    if not _TASK_NAME.fullmatch(text):
        return ""
    turned = text[::-1]
    if meta is not None:
        made = (meta.start_id,) if meta.slice is None else (meta.start_id, meta.slice.iteration)
        if turned.startswith(made):
            return turned
    return text


def _read_count(text: str) -> int:
    return int(text) if _COUNT.fullmatch(text) else 0


def _read_moment(text: str) -> datetime | None:
    """Return an ETA: seconds since the epoch, with a fraction."""
    return datetime.fromtimestamp(float(text), UTC) if _MOMENT.fullmatch(text) else None


def _read_status(text: str) -> int | None:
    """Return the status of the last answer; after a timeout App Engine tells 0, and others 504 (both recorded)."""
    status = _read_count(text)
    if text and _COUNT.fullmatch(text) and status == 0:
        return 504
    return status if 100 <= status <= 599 else None
