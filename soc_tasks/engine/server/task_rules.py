"""What a task may be, and what stands in for what is not given.

Ranges and texts are the service's (recorded, or from the reference), but where it says "ours".
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from soc_tasks.engine.clock import SECOND
from soc_tasks.engine.server import errors, queue_rules
from soc_tasks.engine.server.messages import api, methods, seconds_of
from soc_tasks.engine.server.names import QueueName

#: Bytes of a task as it is stored, at most: recorded, byte for byte, for both kinds of targets.
MOST_BYTES: Final = 1_048_569
MOST_URL: Final = 2083
MOST_HEADERS: Final = 80 * 1024
FARTHEST: Final = timedelta(hours=720)
HTTP_AGENT: Final = "Google-Cloud-Tasks"
APP_ENGINE_AGENT: Final = "AppEngine-Google; (+http://code.google.com/appengine)"
#: Seconds.
_SHORTEST, _HTTP_LONGEST, _APP_ENGINE_LONGEST, _HTTP_USUAL = 15, 1800, 86400 + 900, 600
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def complete(given: Any, queue: QueueName, name: str, now: int, *, http_tokens: bool) -> Any:
    """Return a task as it is stored, without its view.

    Args:
        given: the Task that a client wants.
        queue: its queue.
        name: its id.
        now: microseconds.
        http_tokens: whether tokens may go to http:// URLs of any host.

    Raises:
        ApiError: it cannot be.
    """
    task = api().Task(name=f"{queue}/tasks/{name}")
    kind = given.WhichOneof("message_type")
    if kind is None:
        raise errors.invalid("Task.payload_type is not set.")
    getattr(task, kind).CopyFrom(getattr(given, kind))
    if kind == "http_request":
        _complete_http(task.http_request, http_tokens=http_tokens)
        if not given.HasField("dispatch_deadline"):
            task.dispatch_deadline.FromSeconds(_HTTP_USUAL)
        else:
            _set_deadline(task, given, _HTTP_LONGEST, "[15s, 30m]")
    else:
        _complete_app_engine(task.app_engine_http_request, queue)
        if given.HasField("dispatch_deadline") and seconds_of(given.dispatch_deadline):
            _set_deadline(task, given, _APP_ENGINE_LONGEST, "[15s, 24h15s]")
    task.schedule_time.FromMicroseconds(_read_schedule(given, now))
    task.create_time.FromSeconds(now // SECOND)
    if given.HasField("retry_config"):
        queue_rules.check_retry(given.retry_config)
        task.retry_config.CopyFrom(given.retry_config)
    if _size(task, queue) > MOST_BYTES:
        raise errors.invalid("Task size too large")
    return task


def _set_deadline(task: Any, given: Any, longest: int, allowed: str) -> None:
    seconds = seconds_of(given.dispatch_deadline)
    if not _SHORTEST <= seconds <= longest:
        raise errors.invalid(f"Task.dispatchDeadline must be between {allowed}.")
    # Truncated to milliseconds (reference of Task).
    task.dispatch_deadline.FromMilliseconds(
        given.dispatch_deadline.seconds * 1000 + given.dispatch_deadline.nanos // 1_000_000
    )


def _read_schedule(given: Any, now: int) -> int:
    """Return when a task is due, in microseconds."""
    if not given.HasField("schedule_time"):
        return now
    try:
        wanted = int(given.schedule_time.ToMicroseconds())
    except ValueError as error:
        raise errors.invalid(f"Task.scheduleTime is no moment: {error}.") from None
    if wanted - now > FARTHEST / timedelta(microseconds=1):
        raise errors.invalid(
            f"The Task.scheduleTime, {_show_moment(wanted)}, is too far in the future. "
            "Schedule time must be no more than 720h in the future."
        )
    return max(wanted, now)


def _show_moment(micros: int) -> str:
    """Return a moment as the service writes it: by the clocks of its home."""
    try:
        home: tzinfo = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        home = timezone(timedelta(hours=-8))
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(home).isoformat()


def _complete_http(request: Any, *, http_tokens: bool) -> None:
    if not request.url:
        raise errors.invalid("HttpRequest.url is required.")
    if not request.url.startswith(("http://", "https://")):
        raise errors.invalid("HttpTarget.url must start with 'http://' or 'https://'.")
    if len(request.url) > MOST_URL:
        # Ours.
        raise errors.invalid(f"HttpRequest.url may have {MOST_URL} characters.")
    request.http_method = request.http_method or 1
    _check_body(request, "HttpRequest", {"POST", "PUT", "PATCH"})
    _check_headers(request.headers)
    _set_header(request.headers, "User-Agent", HTTP_AGENT)
    kind = request.WhichOneof("authorization_header")
    if kind is None:
        return
    if kind == "oauth_token":
        raise errors.absent("This server makes no OAuth tokens; give HttpRequest.oidc_token.")
    if not request.oidc_token.service_account_email:
        # Ours.
        raise errors.invalid("HttpRequest.oidcToken.serviceAccountEmail is required.")
    if request.url.startswith("http://") and not http_tokens and not _is_loopback(request.url):
        # The service refuses all of them; here tasks are developed.
        raise errors.invalid(
            "HttpRequest.url must start with 'https://' for request with HttpRequest.authorization_header"
        )


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _complete_app_engine(request: Any, queue: QueueName) -> None:
    # The texts are ours, the rules those of the reference.
    request.relative_uri = request.relative_uri or "/"
    if not request.relative_uri.startswith("/"):
        raise errors.invalid("AppEngineHttpRequest.relativeUri must begin with '/'.")
    if " " in request.relative_uri or len(request.relative_uri) > MOST_URL:
        raise errors.invalid(f"AppEngineHttpRequest.relativeUri may have {MOST_URL} characters and no spaces.")
    request.http_method = request.http_method or 1
    _check_body(request, "AppEngineHttpRequest", {"POST", "PUT"})
    headers = request.headers
    _check_headers(headers)
    agent = _find_header(headers, "user-agent")
    _set_header(headers, "User-Agent", f"{agent} {APP_ENGINE_AGENT}" if agent else APP_ENGINE_AGENT)
    if request.body:
        if _find_header(headers, "content-type") is None:
            headers["Content-Type"] = "application/octet-stream"
        _set_header(headers, "Content-Length", str(len(request.body)))
    request.app_engine_routing.host = show_host(request.app_engine_routing, queue)


def show_host(routing: Any, queue: QueueName, joint: str = "-dot-", domain: str = "appspot.com") -> str:
    """Return the host that an App Engine task would go to.

    Args:
        routing: an AppEngineRouting.
        queue: the task's queue.
        joint: what stands between its parts.
        domain: what follows the project.
    """
    parts = [part for part in (routing.instance, routing.version, routing.service) if part]
    return f"{joint.join([*parts, queue.project])}.{domain}"


def _check_body(request: Any, kind: str, allowed: set[str]) -> None:
    method = methods().get(request.http_method)
    if method is None:
        raise errors.invalid(f"{kind}.httpMethod {request.http_method} is no HTTP method.")
    if request.body and method not in allowed:
        # Ours: the service's words are not known.
        raise errors.invalid(f"{kind}.body is not allowed with the HTTP method {method}.")


def _check_headers(headers: Any) -> None:
    for name, value in headers.items():
        queue_rules.check_header(name, value)
    if sum(len(name) + len(value.encode()) for name, value in headers.items()) > MOST_HEADERS:
        # Ours.
        raise errors.invalid("The headers of a task may have 80 KB together.")


def _find_header(headers: Any, name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _set_header(headers: Any, name: str, value: str) -> None:
    for key in [key for key in headers if key.lower() == name.lower()]:
        del headers[key]
    headers[name] = value


def _size(task: Any, queue: QueueName) -> int:
    """Return the bytes of a task as the service counts them: App Engine's routing is one host name, with its region."""
    if not task.HasField("app_engine_http_request"):
        return int(task.ByteSize())
    counted = api().Task()
    counted.CopyFrom(task)
    routing = counted.app_engine_http_request.app_engine_routing
    host = show_host(routing, queue, ".", "xx.r.appspot.com")
    routing.Clear()
    routing.host = host
    return int(counted.ByteSize())
