"""From a request to a task: method, size, access and form, in this order, before the view is run.

1. anything but POST: 405 (cron on App Engine calls by GET)
2. Content-Length malformed: 400; over the site's limit: 413
3. access refused: 403
4. not made by the queue: the task is queued, 202
5. body shorter than announced: 500; no form of ours: a dead letter, 200

A call of the engine by HTTP proves itself by its headers at 3, and its body is read there, to be compared with them.
"""

from __future__ import annotations

from django.core.handlers.wsgi import get_script_name
from django.http import HttpRequest, HttpResponse, RawPostDataException, UnreadablePostError
from django.utils.encoding import iri_to_uri

from soc_tasks.errors import PayloadError
from soc_tasks.frozen import frozen
from soc_tasks.logic import forms
from soc_tasks.meta import Inherited, Meta
from soc_tasks.values import DELIVERY_KEY, META_HEADER, Delivery, Task, TaskInfo
from soc_tasks.views.access import Check, find_delivery, from_cron, from_queue, plain_info, turn_away
from soc_tasks.views.headers import get_header, read_header
from soc_tasks.views.signed import judge_length


class BadInputError(Exception):
    """The task can never be read; it becomes a dead letter."""


@frozen
class Call:
    """A task that was let in and read.

    Args:
        request: the request.
        info: what the view will see as `request.task`.
        meta: what travelled beside the context.
        delivery: what the queue told of its call.
    """

    request: HttpRequest
    info: TaskInfo
    meta: Meta
    delivery: Delivery | None


def refuse(request: HttpRequest, access: Check) -> HttpResponse | None:
    """Return the answer to a request that is not even read, or None where it is let in."""
    if request.method != "POST" and not (request.method == "GET" and from_cron(request)):
        return HttpResponse(status=405, headers={"Allow": "POST"})
    status = judge_length(request)
    if status:
        return HttpResponse(status=status)
    if access(request):
        return None
    # A slice, and a start that a session or cron was admitted to make, rest on the queue alone.
    meta = read_header(request) if from_queue(request) else None
    return None if meta is not None and (meta.slice is not None or meta.admitted) else turn_away(request)


def read_call(request: HttpRequest) -> Call:
    """Read a request that the queue made.

    Raises:
        UnreadablePostError: the body is shorter than announced, or the client is gone.
        BadInputError: the body or the header is none of ours, and never will be.
    """
    body = _read_body(request)
    try:
        forms.check_form(
            request.content_type or "",
            (request.content_params or {}).get("charset"),
            request.META.get("HTTP_CONTENT_ENCODING", ""),
            body,
        )
        meta = Meta.from_header(get_header(request))
        context = {}
        # An empty form is not worth a QueryDict: the view makes one if it looks.
        if body or meta.json_keys or meta.list_keys:
            context = forms.decode_context(request.POST, meta.json_keys, meta.list_keys)
    except (PayloadError, ValueError) as error:
        raise BadInputError(str(error)) from error
    message = meta.slice
    info = plain_info(
        request,
        context=context,
        start_id=meta.start_id,
        iteration=message.iteration if message is not None else None,
        shard=message.shard if message is not None else None,
        step=message.step if message is not None else None,
    )
    if info is None:
        raise BadInputError("the call was not made by a queue")
    return Call(request=request, info=info, meta=meta, delivery=find_delivery(request))


def _read_body(request: HttpRequest) -> bytes:
    announced = request.META.get("CONTENT_LENGTH") or "0"
    if announced == "0" and DELIVERY_KEY in request.META:
        # Ours, and empty: not worth the reading.
        return b""
    try:
        body = request.body
    except RawPostDataException as error:
        raise BadInputError("the body was read before it came here, as only that of a multipart form can be") from error
    if len(body) < int(announced):
        raise UnreadablePostError(f"the body has {len(body)} of {announced} bytes")
    return body


def quoted_script_name(request: HttpRequest) -> str:
    """Return the script prefix as it stands in the URL."""
    return iri_to_uri(get_script_name(request.META)) or ""


def rebuild_task(request: HttpRequest, info: TaskInfo | None) -> Task:
    """Return the task that a request came from, for its dead letter."""
    names = {"Content-Type": request.content_type or "", META_HEADER: get_header(request)}
    meta = read_header(request)
    inherited = (meta.inherited if meta is not None else None) or Inherited()
    names.update(inherited.headers)
    try:
        body = request.body
    except Exception:  # whatever is wrong with the body, the rest of the letter is kept
        body = b""
    return Task(
        queue=info.queue if info is not None else "default",
        name=info.name if info is not None else "",
        path=request.get_full_path(),
        script_name=quoted_script_name(request),
        body=body,
        headers={name: value for name, value in names.items() if value},
        start_id=meta.start_id if meta is not None else "",
        retry=inherited.retry,
        dispatch_deadline=inherited.dispatch_deadline,
        service=inherited.service,
        version=inherited.version,
        instance=inherited.instance,
    )
