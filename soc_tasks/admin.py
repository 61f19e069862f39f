"""The console in the admin; and for a site's own admin: run iterative tasks over what is selected in a changelist.

    @admin.register(Student)
    class StudentAdmin(admin.ModelAdmin):
        actions = [run_over_selection("email_all", form=MessageForm)]

or, for every iterative task whose entities are of the model, `class StudentAdmin(TaskActionsMixin, admin.ModelAdmin)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse

from soc_tasks.models import Console
from soc_tasks.views.console.pages import VIEW, may
from soc_tasks.views.console.urls import make_urls
from soc_tasks.views.selections import ask_and_start, find_choices, make_choice, may_run

#: A task view, or the name of its URL pattern.
Url = str | Callable[..., Any]


def run_over_selection(
    *tasks: Url,
    url_kwargs: Mapping[str, Any] | None = None,
    queue: str = "default",
    form: type[forms.Form] | None = None,
    description: str | None = None,
    name: str | None = None,
) -> Callable[..., HttpResponse | None]:
    """Return an admin action that runs an iterative task over the selected rows.

    A page asks which task, with what context and in how many shards. Who may change the model, and has the permission
    `soc_tasks.run_over_selection` or is let in by the task's own `access`, may run it.

    Args:
        tasks: the tasks that are offered: views or names of URL patterns. None: all whose entities are of the model,
            and whose URLs take no arguments.
        url_kwargs: what the URL patterns of the tasks take.
        queue: where they are queued.
        form: a form whose cleaned values are the context; None: the context is written as JSON.
        description: what the action is called in the changelist; `%(verbose_name_plural)s` is filled in.
        name: the action's name, which differs from those of other actions; default: made of the tasks' names.
    """
    names = [task if isinstance(task, str) else getattr(task, "__name__", "task") for task in tasks]
    action = name or "_".join(["run", *names, "over_selection"]).replace(":", "_").replace("-", "_")

    def run(modeladmin: Any, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Ask, and start."""
        # Here, and not when the action is made: the URL conf imports the admin.
        choices = [make_choice(task, url_kwargs) for task in tasks] if tasks else find_choices(modeladmin.model)
        return ask_and_start(
            modeladmin, request, queryset, action=action, choices=choices, queue=queue, form_class=form
        )

    run.__name__ = action
    what = f"Run {' or '.join(part.replace('_', ' ') for part in names)}" if names else "Run a task"
    run.short_description = description or f"{what} over selected %(verbose_name_plural)s"  # type: ignore[attr-defined]
    run.allowed_permissions = ("change",)  # type: ignore[attr-defined]
    return run


class TaskActionsMixin:
    """Gives a ModelAdmin an action that runs any iterative task of its model over the selected rows."""

    #: Where they are queued.
    task_queue = "default"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        modeladmin: Any = self
        if modeladmin.actions is None:
            # As Django has it: no actions at all.
            return
        action = run_over_selection(queue=self.task_queue)
        action.allowed_permissions = ("run_over_selection",)  # type: ignore[attr-defined]
        modeladmin.actions = (*modeladmin.actions, action)

    def has_run_over_selection_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may change rows and run at least one of the tasks; the admin finds it by its name."""
        modeladmin: Any = self
        return modeladmin.has_change_permission(request) and any(
            may_run(request, choice) for choice in find_choices(modeladmin.model)
        )


@admin.register(Console)
class ConsoleAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # Django 5.2 has no subscript for it
    """The console: pages of its own, in the place of a changelist.

    It is registered with the default admin site; with another one by `site.register(Console, ConsoleAdmin)`.
    """

    def get_urls(self) -> list[Any]:
        """Return the console's pages instead of those of a model."""
        return [*make_urls(self.admin_site)]

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the link to those who may see the console."""
        return may(request, VIEW)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let those look who may see the console."""
        return may(request, VIEW)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """There is nothing to add."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to change."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to delete."""
        return False
