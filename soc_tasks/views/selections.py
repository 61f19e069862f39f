"""The admin's action "run a task over the selection": a page that asks what and how, and the start of the iteration.

Which rows is never posted: the queryset is the changelist's own, made anew for each request by the admin, which takes
the selected rows, or all across pages, by its own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import model_ngettext
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from soc_tasks.errors import EnqueueError, FatalTaskError, PayloadError
from soc_tasks.logic import payloads
from soc_tasks.logic.batches import ModelLogic
from soc_tasks.logic.plans import make_source
from soc_tasks.logic.selections import start_over_selection, take_keys
from soc_tasks.logic.sharding import MAX_SHARDS
from soc_tasks.logic.urls import ViewOptions, find_task_views, name_view, resolve_target
from soc_tasks.values import TaskHandle

#: Lets a user run any task that is offered; else the task's own access must let them.
PERMISSION = "soc_tasks.run_over_selection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A task that is offered.

    Args:
        url: the view, or the name of its URL pattern.
        url_kwargs: what the pattern takes.
        label: its name, for people.
        options: what is known of its view.
    """

    url: str | Callable[..., Any]
    url_kwargs: Mapping[str, Any] | None
    label: str
    options: ViewOptions


class ContextField(forms.CharField):
    """A context as typed JSON."""

    widget = forms.Textarea(attrs={"rows": 6, "class": "vLargeTextField", "spellcheck": "false"})

    def clean(self, value: Any) -> Any:
        """Return the context."""
        text = super().clean(value)
        try:
            context = payloads.loads(text or "{}")
        except PayloadError as error:
            raise forms.ValidationError(str(error)) from error
        if not isinstance(context, dict):
            raise forms.ValidationError('The context is an object, such as {"subject": "Hello"}.')
        return context


class RunForm(forms.Form):
    """What to run, and how.

    Args:
        choices: the tasks that are offered.
    """

    task = forms.ChoiceField(label="Task")
    context = ContextField(
        label="Context", required=False, initial="{}", help_text="A JSON object: what the task gets."
    )
    shards = forms.IntegerField(
        label="Shards",
        required=False,
        min_value=1,
        max_value=MAX_SHARDS,
        help_text="Parts that the rows are divided into, worked off side by side. Empty: as the task says.",
    )

    def __init__(self, choices: list[Choice], data: Any = None, *, has_context: bool = True) -> None:
        super().__init__(data, prefix="run")
        task: Any = self.fields["task"]
        task.choices = [(str(number), choice.label) for number, choice in enumerate(choices)]
        if not has_context:
            del self.fields["context"]


def find_choices(model: Any) -> list[Choice]:
    """Return the iterative tasks of the URL conf whose entities are of a model, and whose URLs take no arguments."""
    found = []
    for view, options in find_task_views():
        plan = options.plan
        if plan is None or plan.is_kept or plan.logic is None:
            continue
        try:
            logic = make_source(plan, {}).logic
            resolve_target(view)
        except (FatalTaskError, ValueError):
            # Its logic is not registered, or its URL takes arguments: it has to be named with them.
            continue
        if isinstance(logic, ModelLogic) and logic.model._meta.concrete_model is model._meta.concrete_model:
            found.append(Choice(url=view, url_kwargs=None, label=_label(view), options=options))
    return found


def make_choice(url: str | Callable[..., Any], url_kwargs: Mapping[str, Any] | None) -> Choice:
    """Return a task that was named.

    Raises:
        ValueError: it is no iterative task, or its URL takes other arguments.
    """
    target = resolve_target(url, None, url_kwargs)
    if not target.options.iterates or target.options.plan.is_kept:
        raise ValueError(f"{url!r} is no iterative task, so that it cannot run over a selection.")
    return Choice(url=url, url_kwargs=url_kwargs, label=_label(url), options=target.options)


def _label(url: Any) -> str:
    name = url if isinstance(url, str) else name_view(url).rpartition(".")[2]
    return name.replace("_", " ").replace("-", " ").capitalize()


def may_run(request: HttpRequest, choice: Choice) -> bool:
    """Tell whether a user may run a task: by the permission, or by the task's own access."""
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_active:
        return False
    return bool(user.has_perm(PERMISSION) or (choice.options.access is not None and choice.options.access(request)))


def ask_and_start(
    modeladmin: Any,
    request: HttpRequest,
    queryset: QuerySet[Any],
    *,
    action: str,
    choices: list[Choice],
    queue: str,
    form_class: type[forms.Form] | None,
) -> HttpResponse | None:
    """Show the page that asks; when it was confirmed, start the iteration and go back to the changelist.

    Args:
        modeladmin, request, queryset: as the admin hands them to an action.
        action: the action's name.
        choices: the tasks that are offered.
        queue: where they are queued.
        form_class: a form whose values are the context; None: the context is written as JSON.

    Raises:
        PermissionDenied: the user may not change the model, or may run none of the tasks.
    """
    allowed = [choice for choice in choices if may_run(request, choice)]
    if not modeladmin.has_change_permission(request) or not allowed:
        raise PermissionDenied
    try:
        rows = _take_rows(request, queryset)
    except ValueError as error:
        modeladmin.message_user(request, str(error), messages.ERROR)
        return None
    number = rows.count()
    confirmed = request.POST.get("post") == "yes"
    data = request.POST if confirmed else None
    form = RunForm(allowed, data, has_context=form_class is None)
    context_form = None if form_class is None else form_class(data, prefix="context")
    if confirmed and form.is_valid() and (context_form is None or context_form.is_valid()):
        context = form.cleaned_data["context"] if context_form is None else context_form.cleaned_data
        try:
            choice = allowed[int(form.cleaned_data["task"])]
            handle = _start(modeladmin, request, choice, rows, number, context, queue, form.cleaned_data["shards"])
        except (ValueError, PayloadError, EnqueueError) as error:
            form.add_error(None, str(error))
        else:
            text = f"{choice.label} runs over {number:,} {model_ngettext(modeladmin.opts, number)}: {handle.iteration}."
            modeladmin.message_user(request, text, messages.SUCCESS)
            return None
    page = {
        **modeladmin.admin_site.each_context(request),
        "title": "Run a task over the selection",
        "subtitle": None,
        "opts": modeladmin.opts,
        "media": modeladmin.media + form.media + (forms.Media() if context_form is None else context_form.media),
        "forms": [form] if context_form is None else [form, context_form],
        "errors": form.non_field_errors() if confirmed else [],
        "number": number,
        "objects": model_ngettext(modeladmin.opts, number),
        "across": request.POST.get("select_across") == "1",
        "action": action,
        "checkbox": helpers.ACTION_CHECKBOX_NAME,
        "selected": request.POST.getlist(helpers.ACTION_CHECKBOX_NAME),
    }
    request.current_app = modeladmin.admin_site.name
    return TemplateResponse(request, "soc_tasks/run_over_selection.html", page)


def _take_rows(request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return the rows: all of the changelist's, or those of the page that were selected, whatever they become."""
    if request.POST.get("select_across") == "1":
        return take_keys(queryset)
    keys = list(take_keys(queryset).values_list("pk", flat=True).distinct())
    rows: QuerySet[Any] = queryset.model._base_manager.using(queryset.db).filter(pk__in=keys)
    return rows


def _start(
    modeladmin: Any,
    request: HttpRequest,
    choice: Choice,
    rows: QuerySet[Any],
    number: int,
    context: Mapping[str, Any],
    queue: str,
    shards: int | None,
) -> TaskHandle:
    """Start the iteration and note in the admin's log who did, both or neither."""
    alias, user = router.db_for_write(LogEntry), request.user.pk
    assert user is not None  # the admin let them in
    with transaction.atomic(using=alias):
        handle = start_over_selection(
            choice.url,
            rows,
            context,
            queue,
            url_kwargs=choice.url_kwargs,
            shards=shards,
            admitted=True,
            using=alias,
        )
        LogEntry.objects.using(alias).create(
            user_id=user,
            content_type_id=ContentType.objects.get_for_model(modeladmin.model, for_concrete_model=False).pk,
            object_id=None,
            object_repr=f"{number:,} {model_ngettext(modeladmin.opts, number)}"[:200],
            action_flag=CHANGE,
            change_message=f"Started {choice.label!r} ({handle.url}) over them: iteration {handle.iteration}.",
        )
    return handle
