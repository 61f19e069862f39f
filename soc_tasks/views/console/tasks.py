"""Tasks that wait or run: found by URL, queue, state, name or context; run now, deleted, run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern

from soc_tasks.backends.inspection import STATES, Inspector, TaskFilter, TaskPage
from soc_tasks.engine.records import TaskRecord
from soc_tasks.errors import SocTasksError
from soc_tasks.logic.envelopes import read_function
from soc_tasks.logic.reruns import rerun_task
from soc_tasks.logic.showing import read_context, read_headers, write_curl
from soc_tasks.meta import read_meta
from soc_tasks.views.console.actions import perform
from soc_tasks.views.console.pages import PAYLOADS, may, open_inspector

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console

#: Tasks of one page.
PAGE_SIZE = 50


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [
        console.page("tasks/", show_tasks, "tasks"),
        console.page("tasks/<str:queue>/<str:name>/", show_task, "task"),
        console.action("tasks/<str:queue>/<str:name>/act/", act, "task_act"),
    ]


def show_tasks(console: Console, request: HttpRequest) -> HttpResponse:
    """Show a page of the tasks that are looked for."""
    wanted = _read_filter(request)
    inspector, problem = open_inspector()
    page, queues = TaskPage(), []
    if inspector is not None:
        try:
            queues = inspector.list_names()
            page = inspector.list_tasks(wanted, after=request.GET.get("after", ""), limit=PAGE_SIZE)
        except (SocTasksError, ValueError) as error:
            problem = str(error)
    given = {name: value for name, value in _texts(wanted).items() if value}
    values = {
        "rows": [_row(record) for record in page.records],
        "page": page,
        "wanted": wanted,
        "queues": queues,
        "states": STATES if inspector is not None and inspector.knows_states else (),
        "needs_queue": inspector is not None and not inspector.lists_all_queues and not wanted.queue,
        "problem": problem,
        "note": "" if inspector is None else inspector.note,
        "is_first": not request.GET.get("after"),
        "first": f"?{urlencode(given)}",
        "next": f"?{urlencode({**given, 'after': page.next})}" if page.next else "",
        "is_filtered": bool(given),
        "clear": console.url("tasks"),
    }
    poll = 3 if inspector is None else inspector.poll_seconds
    return console.render(request, "tasks", "Tasks", values, tab="tasks", live=True, poll=poll)


def _read_filter(request: HttpRequest) -> TaskFilter:
    texts = {name: request.GET.get(name, "").strip()[:500] for name in ("queue", "state", "url", "name", "context")}
    if texts["state"] not in STATES:
        texts["state"] = ""
    if not may(request, PAYLOADS):
        # What can be searched for can be guessed.
        texts["context"] = ""
    return TaskFilter(**texts)


def _texts(wanted: TaskFilter) -> dict[str, str]:
    return {name: getattr(wanted, name) for name in ("queue", "state", "url", "name", "context")}


def _row(record: TaskRecord) -> dict[str, Any]:
    meta = read_meta(record.task)
    return {
        "record": record,
        "task": record.task,
        "what": read_function(record.task.body) or record.task.path,
        "iteration": meta.slice.iteration if meta is not None and meta.slice is not None else "",
    }


def show_task(console: Console, request: HttpRequest, queue: str, name: str) -> HttpResponse:
    """Show one task."""
    _, record = _find(queue, name)
    values = {**_row(record), **show_payload(request, record.task)}
    values["cancel"] = console.url("tasks")
    return console.render(request, "task", record.task.name, values, tab="tasks")


def show_payload(request: HttpRequest, task: Any) -> dict[str, Any]:
    """Return what a task carries, for those who may see it."""
    if not may(request, PAYLOADS):
        return {"size": len(task.body)}
    return {
        "size": len(task.body),
        "context": read_context(task),
        "headers": read_headers(task),
        "curl": write_curl(task, f"{request.scheme}://{request.get_host()}"),
    }


def act(console: Console, request: HttpRequest, queue: str, name: str) -> HttpResponse:
    """Run a task now, delete it, or run it again as a new one."""
    verb = request.POST.get("verb", "")
    inspector, record = _find(queue, name)
    target = f"{queue}/{name} ({record.task.path})"
    verbs = {
        "run": ("run task now", lambda: _run_now(inspector, queue, name)),
        "delete": ("delete task", lambda: _delete(inspector, queue, name)),
        "rerun": ("run task again", lambda: _rerun(record)),
    }
    if verb not in verbs:
        raise Http404
    action, work = verbs[verb]
    perform(request, action, target, work, together=inspector.is_transactional)
    if verb == "delete":
        return HttpResponseRedirect(console.url("tasks"))
    return console.go_back(request, "tasks")


def _run_now(inspector: Inspector, queue: str, name: str) -> str:
    if not inspector.backend.run_now(queue, name):
        raise LookupError(f"The task {name} runs already, or has ended.")
    return f"The task {name} is due now."


def _delete(inspector: Inspector, queue: str, name: str) -> str:
    if not inspector.backend.delete_task(queue, name):
        raise LookupError(f"There is no task {name} in queue {queue} any more.")
    return f"The task {name} was deleted from queue {queue}."


def _rerun(record: TaskRecord) -> str:
    copy = rerun_task(record.task)
    return f"The task runs again as {copy.name} in queue {copy.queue}."


def _find(queue: str, name: str) -> tuple[Inspector, TaskRecord]:
    """Return a task and where it is, or raise Http404."""
    inspector, problem = open_inspector()
    if inspector is None:
        raise Http404(problem)
    try:
        record = inspector.backend.get_task(queue, name)
    except (SocTasksError, ValueError) as error:
        raise Http404(str(error)) from error
    if record is None:
        raise Http404(f"There is no task {name!r} in queue {queue!r}; it has ended.")
    return inspector, record
