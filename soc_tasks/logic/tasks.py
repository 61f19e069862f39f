"""Starting tasks: check everything, fix the name, hand the task to the backend."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from soc_tasks.backends import get_backend
from soc_tasks.errors import TaskTooLargeError
from soc_tasks.logic.forms import encode_context
from soc_tasks.logic.urls import Place, find_place, resolve_target
from soc_tasks.meta import MAX_META_BYTES, Inherited, Meta, write_plain
from soc_tasks.start_ids import make_start_id, make_start_ids
from soc_tasks.values import CONTENT_TYPE, META_HEADER, RetryOptions, Task, TaskHandle, TaskRequest

#: Cloud Tasks holds a task back for 720 hours at most.
MAX_DELAY: Final = timedelta(hours=720)
#: The longest deadline of Cloud Tasks, for App Engine targets: 24 hours and 15 seconds.
MAX_DEADLINE: Final = 86_415

_TASK_NAME = re.compile(r"[A-Za-z0-9_-]{1,500}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_RESERVED_HEADERS = frozenset({
    "host", "cookie", "authorization", "proxy-authorization", "content-type", "content-length", "content-encoding",
    "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade", "forwarded",
})  # fmt: skip
_RESERVED_PREFIXES = ("x-forwarded-", "x-appengine-", "x-cloudtasks-", "x-soctasks-", "x-google-")


def startTask(
    url: str | Callable[..., Any],
    context: Mapping[str, Any] | None = None,
    queue: str = "default",
    *,
    url_args: Sequence[Any] | None = None,
    url_kwargs: Mapping[str, Any] | None = None,
    countdown: float | None = None,
    eta: datetime | None = None,
    name: str | None = None,
    headers: Mapping[str, str] | None = None,
    service: str | None = None,
    version: str | None = None,
    instance: str | None = None,
    dispatch_deadline: float | None = None,
    retry_options: RetryOptions | None = None,
    using: str | None = None,
) -> TaskHandle:
    """Add a task to a queue: a POST of `context` to `url`, soon or later.

    Args:
        url: a path of this site ("/tasks/…"), the name of a URL pattern, or a view made by `@task` or
            `@iterative_task`.
        context: what is POSTed; str and lists of str as they are, other values as typed JSON.
        queue: name of the queue.
        url_args: positional arguments of the URL pattern, for a name or a view.
        url_kwargs: keyword arguments of the URL pattern, for a name or a view.
        countdown: seconds to wait; goes before `eta`.
        eta: aware datetime before which the task does not run, at most 30 days ahead.
        name: `[A-Za-z0-9_-]{1,500}`, to have the task once only.
        headers: sent along with the POST.
        service, version, instance: where to run, on a backend that routes.
        dispatch_deadline: seconds that an attempt may take.
        retry_options: go before the queue's.
        using: database alias; inside an atomic block of it the task exists if and only if that block commits.
            None: the engine's alias.

    Raises:
        ValueError: an argument is out of range, or the URL leads to no task view.
        PayloadError: the context cannot travel.
        EnqueueError: the task was not accepted; its subclasses say why.
    """
    refuse_event_loop("startTask")
    request = TaskRequest(
        url=url,
        context=context,
        url_args=url_args,
        url_kwargs=url_kwargs,
        countdown=countdown,
        eta=eta,
        name=name,
        headers=headers,
        service=service,
        version=version,
        instance=instance,
        dispatch_deadline=dispatch_deadline,
        retry_options=retry_options,
    )
    task, handle = build_task(request, queue)
    get_backend().submit([task], using)
    return handle


def startTasks(
    requests: Iterable[TaskRequest | Mapping[str, Any]], queue: str = "default", *, using: str | None = None
) -> list[TaskHandle]:
    """Add many tasks to a queue at once, all or none; the handles come in the same order.

    Args:
        requests: `TaskRequest`s, or dicts of `startTask`'s arguments.
        queue: name of the queue.
        using: as for `startTask`.

    Raises:
        ValueError, PayloadError, EnqueueError: as for `startTask`; nothing was queued then.
    """
    refuse_event_loop("startTasks")
    asked = [_as_request(request) for request in requests]
    if not asked:
        return []
    place, now, start_ids = find_place(), get_backend().now(), make_start_ids(len(asked))
    built = [
        build_task(request, request.queue or queue, place=place, now=now, start_id=start_id)
        for request, start_id in zip(asked, start_ids, strict=True)
    ]
    get_backend().submit([task for task, _ in built], using)
    return [handle for _, handle in built]


def refuse_event_loop(name: str) -> None:
    """Raise RuntimeError on a running event loop, which a database call would block."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{name} talks to the database and must not be called on a running event loop. "
        f"Write: await asgiref.sync.sync_to_async({name})(…)"
    )


def _as_request(request: TaskRequest | Mapping[str, Any]) -> TaskRequest:
    if isinstance(request, TaskRequest):
        return request
    if not isinstance(request, Mapping):
        raise TypeError(f"requests must hold TaskRequest or dicts of startTask's arguments, not {request!r}.")
    if "using" in request:
        raise TypeError("using belongs to the whole call: startTasks(requests, using=…).")
    return TaskRequest(**request)


def build_task(
    request: TaskRequest,
    queue: str,
    *,
    place: Place | None = None,
    now: datetime | None = None,
    start_id: str | None = None,
    **meta: Any,
) -> tuple[Task, TaskHandle]:
    """Check a request and make its task.

    Args:
        request: what is asked for.
        queue: name of the queue.
        place: what URLs are made by; None: asked now.
        now: the backend's time; None: asked now.
        start_id: the task's start id; None: made now.
        meta: further fields of the task's `Meta`.

    Raises:
        ValueError, PayloadError, TaskTooLargeError: as for `startTask`.
    """
    elsewhere = request.service is not None
    target = resolve_target(request.url, request.url_args, request.url_kwargs, elsewhere=elsewhere, place=place)
    if not (target.options.takes_queue or meta.get("admitted")):
        raise ValueError(
            f"{target.path!r} does not let the queue in, so that its task would be refused at every attempt; "
            "give its view access=from_queue | …, or have it started by a session or cron alone."
        )
    body, json_keys, list_keys = encode_context(request.context)
    headers = _check_headers(request.headers) if request.headers is not None else {}
    retry = _check_retry(request.retry_options, target.options.max_attempts)
    _check_deadline(request.dispatch_deadline)
    now = get_backend().now() if now is None else now
    eta = _find_eta(request.countdown, request.eta, now)
    start_id = start_id or make_start_id()
    options = (headers, retry, request.dispatch_deadline, request.service, request.version, request.instance)
    if target.options.iterates or any(options):
        # For slices, and for a dead letter, which is made from the call alone.
        meta["inherited"] = Inherited(
            queue=queue,
            service=request.service,
            version=request.version,
            instance=request.instance,
            headers=headers,
            dispatch_deadline=request.dispatch_deadline,
            retry=retry,
        )
    since = None if eta is None else round(eta.timestamp(), 3)
    if json_keys or list_keys or meta or since is not None:
        header = Meta(start_id=start_id, json_keys=json_keys, list_keys=list_keys, since=since, **meta).to_header()
    else:
        header = write_plain(start_id)
    if len(header) > MAX_META_BYTES:
        raise TaskTooLargeError(
            f"The names of the context's typed keys and the headers take {len(header):,} bytes; "
            f"a header holds {MAX_META_BYTES:,}. Put the values into one dict under one key."
        )
    task = Task(
        queue=queue,
        name=_check_name(request.name) if request.name is not None else start_id,
        named=request.name is not None,
        path=target.path,
        script_name=target.script_name,
        body=body,
        headers={"Content-Type": CONTENT_TYPE, META_HEADER: header, **headers},
        eta=eta,
        created=now,
        dispatch_deadline=request.dispatch_deadline,
        retry=retry,
        service=request.service,
        version=request.version,
        instance=request.instance,
        start_id=start_id,
    )
    iteration = start_id if target.options.iterates else None
    return task, TaskHandle(name=task.name, queue=queue, url=task.path, eta=eta, iteration=iteration)


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not _TASK_NAME.fullmatch(name):
        raise ValueError(f"A task's name must match [A-Za-z0-9_-] and have 1 to 500 characters, not {name!r}.")
    return name


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    checked: dict[str, str] = {}
    if not isinstance(headers, Mapping):
        raise ValueError(f"headers must be a dict, not {type(headers).__name__}.")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a header.")
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIXES):
            raise ValueError(f"The header {name!r} is reserved; a task cannot set it.")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ValueError(f"The value of the header {name!r} must be printable ASCII, without line breaks.")
        checked[name] = value
    return checked


def _check_retry(retry: RetryOptions | None, max_attempts: int | None) -> RetryOptions | None:
    if retry is not None and not isinstance(retry, RetryOptions):
        raise ValueError(f"retry_options must be RetryOptions(…), not {retry!r}.")
    if max_attempts is None:
        return retry
    base = RetryOptions(max_attempts=max_attempts)
    return base if retry is None else retry.over(base)


def _check_deadline(deadline: float | None) -> None:
    if deadline is None:
        return
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not 0 < deadline <= MAX_DEADLINE:
        raise ValueError(f"dispatch_deadline must be seconds above 0, at most {MAX_DEADLINE:,}, not {deadline!r}.")


def _find_eta(countdown: float | None, eta: datetime | None, now: datetime) -> datetime | None:
    _check_eta(eta, now)
    if countdown is not None:
        good = isinstance(countdown, (int, float)) and not isinstance(countdown, bool)
        if not good or not math.isfinite(countdown) or not 0 <= countdown <= MAX_DELAY.total_seconds():
            hint = " Pass its total_seconds()." if isinstance(countdown, timedelta) else ""
            raise ValueError(f"countdown must be seconds from 0 to 30 days, not {countdown!r}.{hint}")
        return now + timedelta(seconds=countdown) if countdown else None
    return eta


def _check_eta(eta: datetime | None, now: datetime) -> None:
    if eta is None:
        return
    if not isinstance(eta, datetime) or eta.tzinfo is None or eta.utcoffset() is None:
        hint = (
            "to wait for so long, pass its total_seconds() as countdown"
            if isinstance(eta, timedelta)
            else "see django.utils.timezone.make_aware"
        )
        raise ValueError(f"eta must be a datetime with a time zone, not {eta!r}; {hint}.")
    if eta - now > MAX_DELAY:
        raise ValueError(f"eta must be at most 30 days ahead, not {eta.isoformat()}.")
