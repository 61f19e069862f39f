"""Dispatch by HTTP: a task becomes a signed POST to this site at its URL, or to another service.

Anything but 2xx is a failed attempt. What is no answer of the site's own:

| what happened                                       | status |
|-----------------------------------------------------|--------|
| no whole answer before the attempt's deadline       | 504    |
| no connection, or one that broke off                | 502    |
| the task is for a service that SERVICES do not name | 502    |

502, since 503 would read as if the service asked to be called less. Redirects are not followed: a signature is for one
path of one site.

What an answer says beside its status (outcome, countdown) cannot be proven. Whoever answers at the URL could do no
more with it than with the status: keep a task coming, or take it off its queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from soc_tasks.conf import get_settings
from soc_tasks.engine.answers import make_answer
from soc_tasks.engine.verdicts import TIMED_OUT
from soc_tasks.errors import ConfigurationError
from soc_tasks.signatures import Signed, sign, unquote_path, write_facts
from soc_tasks.values import (
    COUNTDOWN_HEADER,
    DELIVERY_HEADER,
    META_HEADER,
    OUTCOME_HEADER,
    SIGNATURE_HEADER,
    Answer,
    Delivery,
    Task,
)

logger = logging.getLogger("soc_tasks.engine")

#: What is noted where nobody answered.
NO_CONNECTION: Final = 502
#: Seconds between log lines about one service.
QUIET: Final = 10.0
_HINTS = {
    400: "does its ALLOWED_HOSTS hold the host of this URL?",
    403: "are SECRET_KEY and the clock the same there, and does the view's access let the queue in?",
}


class HttpDispatcher:
    """Makes calls by HTTP; one per process, shared by its threads.

    Args:
        url: base URL of this site, for tasks without a service; None: there are none here.
        services: base URLs of services by name.

    Raises:
        ConfigurationError: urllib3 is missing.
    """

    #: Seconds beyond its deadline in which an attempt ends by itself: its socket keeps the time.
    patience: Final = 1.0

    def __init__(self, url: str | None, services: Mapping[str, str]) -> None:
        try:
            import urllib3

            from soc_tasks.engine import wire
        except ImportError as error:
            raise ConfigurationError(
                "Tasks are dispatched by HTTP (SOC_TASKS['DISPATCH'] or ['SERVICES']), which needs urllib3: "
                "pip install soc-tasks[http]"
            ) from error
        urls: dict[str | None, str] = {name: base.rstrip("/") for name, base in services.items()}
        if url is not None:
            urls[None] = url.rstrip("/")
        manager = wire.make_manager(len(urls) or 1)
        #: None stands for this site.
        self._services = {name: (base, manager.connection_from_url(base)) for name, base in urls.items()}
        self._call, self._send = wire.call, wire.send
        self._make_headers = urllib3.HTTPHeaderDict
        self._errors = (urllib3.exceptions.HTTPError, OSError)
        self._told: dict[str, float] = {}

    def __call__(self, task: Task, delivery: Delivery) -> Answer:
        """Make the call and return its answer."""
        found = self._services.get(task.service)
        if found is None:
            self._tell(f"service {task.service}", "SOC_TASKS['SERVICES'] of this worker does not name it")
            return Answer(status=NO_CONNECTION)
        base, pool = found
        self._call.deadline = delivery.deadline
        try:
            answer = self._request(pool, base, task, delivery)
        except self._errors as error:
            # For the line of this attempt in the log.
            delivery.failures.append(error)
            if time.monotonic() >= delivery.deadline:
                return Answer(status=TIMED_OUT)
            self._tell(base, _describe(error))
            return Answer(status=NO_CONNECTION)
        if hint := _HINTS.get(answer.status) or (300 <= answer.status < 400 and "redirects are not followed"):
            self._tell(base, f"it answered {answer.status}: {hint}")
        return answer

    def _request(self, pool: Any, base: str, task: Task, delivery: Delivery) -> Answer:
        target = _as_sent(base, task.path)
        status, headers = self._send(pool, "POST", target, task.body, self._write_headers(target, task, delivery))
        return make_answer(
            status, headers.get(OUTCOME_HEADER), headers.get(COUNTDOWN_HEADER), headers.get("Retry-After")
        )

    def _write_headers(self, target: str, task: Task, delivery: Delivery) -> Any:
        headers = self._make_headers({"User-Agent": "soc_tasks", "Content-Type": "application/octet-stream"})
        for name, value in task.headers.items():
            headers[name] = value
        for name, value in _tell_as_cloud_tasks(delivery).items():
            headers[name] = value
        path, _, query = target.partition("?")
        signed = Signed(
            method="POST",
            path=unquote_path(path),
            query=query,
            content_type=headers["Content-Type"],
            facts=write_facts(delivery, task.body),
            meta=headers.get(META_HEADER, ""),
        )
        headers[DELIVERY_HEADER] = signed.facts
        headers[SIGNATURE_HEADER] = sign(signed)
        return headers

    def _tell(self, service: str, what: str) -> None:
        """Say why attempts fail, now and then."""
        now = time.monotonic()
        if now >= self._told.get(service, 0.0):
            self._told[service] = now + QUIET
            logger.warning("a call of %s failed, and its task will be tried again: %s", service, what)


def make_http_dispatcher(*, with_site: bool) -> HttpDispatcher:
    """Return the dispatcher for the services of the settings, and with `with_site` for this site at its URL.

    Raises:
        ConfigurationError: the site is to be called and URL is not set, or urllib3 is missing.
    """
    settings = get_settings()
    if with_site and settings.url is None:
        raise ConfigurationError(
            "SOC_TASKS['DISPATCH'] is 'http' and SOC_TASKS['URL'] is not set: give it the base URL of this site."
        )
    return HttpDispatcher(settings.url if with_site else None, settings.services)


@lru_cache(maxsize=1024)
def _as_sent(base: str, path: str) -> str:
    """Return path and query as urllib3 sends them: it spells some escapes anew, and what is signed is what is sent."""
    from urllib3.util import parse_url

    return parse_url(base + path).request_uri


def _tell_as_cloud_tasks(delivery: Delivery) -> dict[str, str]:
    """Return the headers that Cloud Tasks sends to HTTP targets; they prove nothing, here or there."""
    headers = {
        "X-CloudTasks-QueueName": delivery.queue,
        "X-CloudTasks-TaskName": delivery.name,
        "X-CloudTasks-TaskRetryCount": str(delivery.retry_count),
        "X-CloudTasks-TaskExecutionCount": str(delivery.execution_count),
    }
    if delivery.eta is not None:
        headers["X-CloudTasks-TaskETA"] = f"{delivery.eta.timestamp():.6f}"
    if delivery.previous_status is not None:
        headers["X-CloudTasks-TaskPreviousResponse"] = str(delivery.previous_status)
        headers["X-CloudTasks-TaskRetryReason"] = ""
    return headers


def _describe(error: Exception) -> str:
    # urllib3 puts the connection's address in memory before its own message.
    return str(error).rpartition(" object at 0x")[2].partition(": ")[2] or str(error) or type(error).__name__
