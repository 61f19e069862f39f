"""What is sent for a task: method, URL, headers and body, of both kinds of targets.

Headers are those that were recorded on the wire; the overrides of a queue are the client library's rules.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from soc_tasks.engine.server.messages import api, methods
from soc_tasks.engine.server.rows import Attempts
from soc_tasks.engine.server.task_rules import HTTP_AGENT
from soc_tasks.values import Delivery, Task

#: What nobody's headers may say: these are computed, or belong to the connection.
_COMPUTED: Final = frozenset(
    {"host", "content-length", "connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "expect"}
)
_RESERVED: Final = ("x-google-", "x-appengine-", "x-cloudtasks-")
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class Outgoing(NamedTuple):
    """A request that is to be made."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    #: E-mail and audience of the token that goes with it.
    oidc: tuple[str, str] | None = None


def for_http(task: Task, delivery: Delivery, attempts: Attempts, queue: Any) -> Outgoing:
    """Return the request of a task with an HTTP target.

    Args:
        task: the task.
        delivery: its attempt.
        attempts: those before.
        queue: configuration of its queue, or None.
    """
    target: dict[str, Any] = dict(task.target or {})
    headers, url, oidc = _keep_headers(task), task.path, target.get("oidc")
    method = methods()[target["method"]]
    if queue is not None and queue.HasField("http_target"):
        override = queue.http_target
        if override.HasField("uri_override"):
            url = override_url(url, override.uri_override)
        if override.http_method:
            method = methods()[override.http_method]
        for each in override.header_overrides:
            if not _is_ours(each.header.key):
                _set(headers, each.header.key, each.header.value)
        if override.HasField("oidc_token"):
            oidc = (override.oidc_token.service_account_email, override.oidc_token.audience)
    _set(headers, "User-Agent", HTTP_AGENT)
    _add_facts(headers, "X-CloudTasks-", delivery, attempts)
    if attempts.made:
        # 504 after a timeout was recorded; 503 where nobody answered is ours.
        previous = attempts.status or (504 if attempts.why == "timeout" else 503)
        headers["X-CloudTasks-TaskPreviousResponse"] = str(previous)
        headers["X-CloudTasks-TaskRetryReason"] = ""
    sent = None
    if oidc is not None:
        sent = (oidc[0], oidc[1] or url)
    return Outgoing(method, url, headers, _body(task, method), sent)


def for_app_engine(task: Task, delivery: Delivery, attempts: Attempts, base: str) -> Outgoing:
    """Return the request of a task with an App Engine target.

    Args:
        task: the task.
        delivery: its attempt.
        attempts: those before.
        base: URL of the service that it goes to.
    """
    headers = _keep_headers(task)
    _add_facts(headers, "X-AppEngine-", delivery, attempts)
    if attempts.made:
        headers["X-AppEngine-TaskPreviousResponse"] = str(attempts.status)
        headers["X-AppEngine-TaskRetryReason"] = "App Error" if attempts.status else "Instance Unavailable"
    method = methods()[dict(task.target or {})["method"]]
    return Outgoing(method, base.rstrip("/") + task.path, headers, _body(task, method))


def service_of(task: Task, queue: Any) -> str:
    """Return the App Engine service of a task: its queue's routing goes before its own."""
    if queue is not None and queue.HasField("app_engine_routing_override"):
        return queue.app_engine_routing_override.service or "default"
    return task.service or "default"


def override_url(url: str, override: Any) -> str:
    """Return a URL with what a queue's UriOverride says; with IF_NOT_EXISTS only where the URL says nothing."""
    kind = api().UriOverride
    always = override.uri_override_enforce_mode != kind.IF_NOT_EXISTS
    parts = urlsplit(url)
    scheme, path, query = parts.scheme, parts.path, parts.query
    host, port = _split_host(parts.netloc)
    if override.HasField("scheme") and (always or not scheme):
        scheme = "http" if override.scheme == kind.HTTP else "https"
    if override.HasField("host") and (always or not host):
        host, more = _split_host(override.host)
        port = more or port
    if override.HasField("port") and (always or not port):
        port = str(override.port) if override.port else ""
    if override.HasField("path_override") and (always or path in {"", "/"}):
        path = override.path_override.path
        path = path if not path or path.startswith("/") else f"/{path}"
    if override.HasField("query_override") and (always or not query):
        query = override.query_override.query_params
    return urlunsplit((scheme, f"{host}:{port}" if port else host, path, query, ""))


def _split_host(netloc: str) -> tuple[str, str]:
    host, colon, port = netloc.rpartition(":")
    return (host, port) if colon and port.isdecimal() else (netloc, "")


def _is_ours(name: str) -> bool:
    return name.lower() in _COMPUTED or name.lower().startswith(_RESERVED)


def _keep_headers(task: Task) -> dict[str, str]:
    """Return the headers that a task brings along, in their own case, without those that are not its own to set."""
    return {name: value for name, value in task.headers.items() if not _is_ours(name)}


def _set(headers: dict[str, str], name: str, value: str) -> None:
    for key in [key for key in headers if key.lower() == name.lower()]:
        del headers[key]
    headers[name] = value


def _add_facts(headers: dict[str, str], prefix: str, delivery: Delivery, attempts: Attempts) -> None:
    headers[f"{prefix}QueueName"] = delivery.queue.rpartition("/")[2]
    headers[f"{prefix}TaskName"] = delivery.name
    headers[f"{prefix}TaskRetryCount"] = str(attempts.made)
    headers[f"{prefix}TaskExecutionCount"] = str(attempts.counted)
    if delivery.eta is not None:
        headers[f"{prefix}TaskETA"] = f"{delivery.eta.timestamp():.6f}"


def _body(task: Task, method: str) -> bytes | None:
    return task.body if method in _WITH_BODY else None
