"""Start a task: every decorated URL, with a form for its URL arguments and its context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.http import urlencode

from soc_tasks.backends import get_backend
from soc_tasks.conf import get_queues
from soc_tasks.errors import FatalTaskError, SocTasksError
from soc_tasks.logic.catalog import TaskPattern, count_entities, find_task_pattern, list_task_patterns
from soc_tasks.logic.dry_run_calls import DryRunText, try_dry
from soc_tasks.logic.tasks import build_task
from soc_tasks.logic.urls import resolve_target
from soc_tasks.state import get_state
from soc_tasks.state.audit import audit_alias
from soc_tasks.values import TaskHandle, TaskRequest
from soc_tasks.views.console.actions import perform, refuse
from soc_tasks.views.console.pages import START
from soc_tasks.views.selections import ContextField

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console


#: What the converters of URLs take, for people.
_KINDS: Final = {
    "int": "a whole number",
    "slug": "letters, digits, hyphens and underscores",
    "str": "a text without slashes",
    "path": "a text",
    "uuid": "a UUID",
}


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [
        console.page("start/", show_tasks, "start", needs=START),
        console.form("start/task/", start, "start_task", needs=START),
    ]


def may_start(request: HttpRequest, pattern: TaskPattern) -> bool:
    """Tell whether a user may start a task: where its access judges users, they must pass it."""
    access: Any = pattern.options.access
    return access is None or not access.judges_user or access(request) is True


def show_tasks(console: Console, request: HttpRequest) -> HttpResponse:
    """Show the tasks of the site."""
    rows = [
        {
            "pattern": pattern,
            "may_start": may_start(request, pattern),
            "url": f"{console.url('start_task')}?{urlencode({'route': pattern.route})}",
        }
        for pattern in list_task_patterns()
    ]
    return console.render(request, "start", "Start a task", {"rows": rows}, tab="start")


class StartForm(forms.Form):
    """What a task is started with.

    Args:
        pattern: the task.
        data: what was posted.
    """

    queue = forms.ChoiceField()
    countdown = forms.FloatField(
        label="Countdown", required=False, min_value=0, help_text="Seconds to wait before it runs. Empty: at once."
    )
    context = ContextField(
        label="Context", required=False, initial="{}", help_text="A JSON object: what the task gets."
    )

    def __init__(self, pattern: TaskPattern, data: Any = None) -> None:
        super().__init__(data)
        queues: Any = self.fields["queue"]
        queues.choices = [(name, name) for name in sorted(get_queues())]
        queues.initial = "default"
        self._arguments = list(pattern.arguments)
        for name, kind in pattern.arguments.items():
            self.fields[f"url_{name}"] = forms.CharField(label=name, help_text=f"In the URL: {_KINDS.get(kind, kind)}.")
        self.order_fields([*(f"url_{name}" for name in self._arguments), "context", "queue", "countdown"])

    @property
    def url_kwargs(self) -> dict[str, str]:
        """Return the arguments of the URL."""
        return {name: self.cleaned_data[f"url_{name}"] for name in self._arguments}


def start(console: Console, request: HttpRequest) -> HttpResponse:
    """Ask for what a task needs; count its entities, try it dry, or start it."""
    pattern = find_task_pattern((request.POST if request.method == "POST" else request.GET).get("route", ""))
    if pattern is None:
        raise Http404("There is no such task.")
    if not may_start(request, pattern):
        raise refuse(request, f"start {pattern.label}")
    form = StartForm(pattern, request.POST if request.method == "POST" else None)
    values: dict[str, Any] = {"pattern": pattern, "form": form, "cancel": console.url("start")}
    if request.method == "POST" and form.is_valid():
        try:
            path = resolve_target(pattern.url, None, form.url_kwargs).path
        except ValueError:
            # What is wrong with a URL that somebody wrote: here the pattern is right, and a value is not.
            wanted = ", ".join(f"{name}: {_KINDS.get(kind, kind)}" for name, kind in pattern.arguments.items())
            form.add_error(None, f"These values do not fit into {pattern.route} ({wanted}).")
        else:
            what = request.POST.get("what", "")
            if what == "start":
                handle = _start(request, pattern, form, path)
                if handle is not None:
                    return HttpResponseRedirect(_find_next(console, handle))
            elif pattern.can_be_counted:
                values |= _count(pattern, form) if what == "count" else _try(request, pattern, form, path)
    return console.render(request, "start_task", f"Start {pattern.label}", values, tab="start")


def _start(request: HttpRequest, pattern: TaskPattern, form: StartForm, path: str) -> TaskHandle | None:
    data = form.cleaned_data
    # Django's state is where the log is: there both commit together. Datastore's has no part in that transaction.
    using = audit_alias() if get_state().alias == audit_alias() else None
    started: list[TaskHandle] = []

    def work() -> str:
        ask = TaskRequest(url=path, context=data["context"], countdown=data["countdown"])
        # Access was judged here; when the queue delivers the task there is no session to judge.
        task, handle = build_task(ask, data["queue"], admitted=True)
        get_backend().submit([task], using)
        started.append(handle)
        return f"The task {handle.name} for {handle.url} is in queue {handle.queue}."

    done = perform(request, "start task", f"{path} ({pattern.view})", work)
    return started[0] if done else None


def _find_next(console: Console, handle: TaskHandle) -> str:
    if handle.iteration is not None:
        return console.url("iteration", handle.iteration)
    return f"{console.url('tasks')}?{urlencode({'queue': handle.queue})}"


def _count(pattern: TaskPattern, form: StartForm) -> dict[str, Any]:
    try:
        number = count_entities(pattern, form.cleaned_data["context"])
    except (FatalTaskError, SocTasksError, ValueError) as error:
        form.add_error("context", str(error))
        return {}
    return {"is_counted": True, "number": number}


def _try(request: HttpRequest, pattern: TaskPattern, form: StartForm, path: str) -> dict[str, Any]:
    tried: list[DryRunText] = []

    def work() -> str:
        tried.append(try_dry(path, form.cleaned_data["context"], form.cleaned_data["queue"]))
        return "The dry run went through." if tried[0].is_good else "The dry run failed."

    # What the view does beside databases, mail and queues is really done.
    perform(request, "try task dry", f"{path} ({pattern.view})", work, together=False)
    return {"dry_run": tried[0]} if tried else {}
