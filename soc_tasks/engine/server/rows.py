"""Tasks of the API as rows of the engine, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from soc_tasks.engine.clock import from_micros
from soc_tasks.engine.server import queue_rules
from soc_tasks.engine.server.messages import api, seconds_of, set_micros
from soc_tasks.engine.server.names import QueueName, from_key
from soc_tasks.engine.store.rows import Leased, State
from soc_tasks.values import Task

#: google.rpc.Code by HTTP status (google/rpc/code.proto), with its name; others are UNKNOWN.
_CODES = {
    400: (3, "INVALID_ARGUMENT"),
    401: (16, "UNAUTHENTICATED"),
    403: (7, "PERMISSION_DENIED"),
    404: (5, "NOT_FOUND"),
    409: (10, "ABORTED"),
    429: (8, "RESOURCE_EXHAUSTED"),
    499: (1, "CANCELLED"),
    500: (13, "INTERNAL"),
    501: (12, "UNIMPLEMENTED"),
    503: (14, "UNAVAILABLE"),
    504: (4, "DEADLINE_EXCEEDED"),
}


@dataclass(slots=True)
class Attempts:
    """What is known of the attempts of a task, kept in its row as a note.

    Args:
        made: how many ended.
        responses: those that were answered.
        counted: those whose answers count for TaskExecutionCount.
        status: what the last one was answered with; 0: not at all.
        why: "timeout" or "unreachable" where it was not.
        first: when the first one began, in microseconds.
        scheduled, dispatched, answered: when the last one was due, began and ended, in microseconds.
    """

    made: int = 0
    responses: int = 0
    counted: int = 0
    status: int = 0
    why: str = ""
    first: int = 0
    scheduled: int = 0
    dispatched: int = 0
    answered: int = 0

    @classmethod
    def read(cls, note: str, made: int) -> Attempts:
        """Return what a note says of `made` attempts; one that it does not know of gave no answer in time."""
        given = json.loads(note) if note else {}
        # A newer release may have noted what this one does not know.
        known = cls(**{name: given[name] for name in cls.__slots__ if name in given})
        if known.made != made:
            known.made, known.status, known.why = made, 0, "timeout"
        return known

    def write(self) -> str:
        """Return the note."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, separators=(",", ":"))


def to_row(task: Any, queue: QueueName, name: str, *, named: bool) -> Task:
    """Return what the engine keeps of a complete task.

    Args:
        task: the Task of the API.
        queue: its queue.
        name: its id.
        named: whether the client chose that.
    """
    kind = task.WhichOneof("message_type")
    request = getattr(task, kind)
    target: dict[str, Any] = {"method": request.http_method}
    if kind == "http_request":
        path = request.url
        if request.HasField("oidc_token"):
            target["oidc"] = [request.oidc_token.service_account_email, request.oidc_token.audience]
        routing = api().AppEngineRouting()
    else:
        path, routing = request.relative_uri, request.app_engine_routing
        target["host"] = routing.host
    if task.HasField("retry_config"):
        from google.protobuf import json_format

        target["retry"] = json_format.MessageToDict(task.retry_config)
    return Task(
        queue=queue.key,
        name=name,
        path=path,
        headers=dict(request.headers),
        body=request.body,
        eta=from_micros(task.schedule_time.ToMicroseconds()),
        created=from_micros(task.create_time.ToMicroseconds()),
        dispatch_deadline=seconds_of(task.dispatch_deadline) if task.HasField("dispatch_deadline") else None,
        retry=queue_rules.read_retry(task.retry_config, whole=False) if task.HasField("retry_config") else None,
        service=routing.service or None,
        version=routing.version or None,
        instance=routing.instance or None,
        target=target,
        named=named,
    )


def to_message(leased: Leased, state: int, *, full: bool, dispatched: int | None) -> Any:
    """Return a row as the API shows it.

    Args:
        leased: the row.
        state: its state.
        full: whether with its body.
        dispatched: when the attempt began that is under way, if one is.
    """
    task, row = api().Task(), leased.to_task()
    task.name = f"{from_key(leased.queue)}/tasks/{leased.name}"
    target = dict(row.target or {})
    if "host" in target:
        request = task.app_engine_http_request
        request.relative_uri = row.path
        for part in ("service", "version", "instance"):
            setattr(request.app_engine_routing, part, getattr(row, part) or "")
        request.app_engine_routing.host = target["host"]
    else:
        request = task.http_request
        request.url = row.path
        if oidc := target.get("oidc"):
            request.oidc_token.service_account_email, request.oidc_token.audience = oidc
    request.http_method = target["method"]
    request.headers.update(row.headers)
    if full:
        request.body = row.body
    if "retry" in target:
        from google.protobuf import json_format

        json_format.ParseDict(target["retry"], task.retry_config, ignore_unknown_fields=True)
        # Also where all of it is 0.
        task.retry_config.SetInParent()
    set_micros(task.schedule_time, abs(leased.due))
    set_micros(task.create_time, leased.created)
    if row.dispatch_deadline is not None:
        task.dispatch_deadline.FromMilliseconds(round(row.dispatch_deadline * 1000))
    task.view = api().Task.FULL if full else api().Task.BASIC
    _show_attempts(task, leased, dispatched if state == State.RUNNING else None)
    return task


def _show_attempts(task: Any, leased: Leased, dispatched: int | None) -> None:
    known = Attempts.read(leased.note, leased.attempts)
    task.dispatch_count = leased.attempts + (dispatched is not None)
    task.response_count = known.responses
    first = known.first or leased.first_attempt or dispatched
    if first:
        set_micros(task.first_attempt.dispatch_time, first)
    if dispatched is not None:
        set_micros(task.last_attempt.schedule_time, abs(leased.due))
        set_micros(task.last_attempt.dispatch_time, dispatched)
    elif leased.attempts:
        last = task.last_attempt
        for field_name, moment in (
            ("schedule_time", known.scheduled),
            ("dispatch_time", known.dispatched),
            ("response_time", known.answered),
        ):
            if moment:
                set_micros(getattr(last, field_name), moment)
        status = known.status or (504 if known.why == "timeout" else 503)
        code, name = _CODES.get(status, (2, "UNKNOWN"))
        last.response_status.code = code
        last.response_status.message = f"{name}({code}): HTTP status code {status}"
