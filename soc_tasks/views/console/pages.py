"""What all pages of the console share: who may see them, their frame, their links, and how they are kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final

from django.apps import apps
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST, require_safe

from soc_tasks.backends import get_backend
from soc_tasks.backends.inspection import Inspector
from soc_tasks.errors import SocTasksError
from soc_tasks.views.console.actions import refuse
from soc_tasks.views.decorators import EveryAlias

#: The permissions of the console, by what they let people do.
VIEW: Final = "soc_tasks.view_console"
OPERATE: Final = "soc_tasks.operate"
START: Final = "soc_tasks.start"
PAYLOADS: Final = "soc_tasks.view_payloads"

#: The pages that every page links to: name, label.
TABS: Final = (
    ("changelist", "Overview"),
    ("queues", "Queues"),
    ("tasks", "Tasks"),
    ("iterations", "Iterations"),
    ("failures", "Failures"),
    ("start", "Start a task"),
    ("audit", "Audit log"),
)

Page = Callable[..., HttpResponse]


class Console:
    """The console in one admin site.

    Args:
        admin_site: the site.
    """

    def __init__(self, admin_site: Any) -> None:
        self.admin_site = admin_site

    def url(self, name: str, *args: Any) -> str:
        """Return the path of one of its pages."""
        return reverse(f"admin:soc_tasks_console_{name}", args=args, current_app=self.admin_site.name)

    def page(self, route: str, view: Page, name: str, *, needs: str = VIEW) -> URLPattern:
        """Return the pattern of a page that only shows something.

        Args:
            route: behind the console's own.
            view: called with the console and the request.
            name: its name among the console's pages.
            needs: a permission beside that to see the console.
        """
        return self._pattern(route, require_safe(self._bind(view, needs)), name)

    def action(self, route: str, view: Page, name: str, *, needs: str = OPERATE) -> URLPattern:
        """Return the pattern of what changes something: by POST alone, with the admin's CSRF check."""
        return self._pattern(route, require_POST(self._bind(view, needs)), name)

    def form(self, route: str, view: Page, name: str, *, needs: str = OPERATE) -> URLPattern:
        """Return the pattern of a page that asks, and of what it sends to itself."""
        return self._pattern(route, self._bind(view, needs), name)

    def _bind(self, view: Page, needs: str) -> Page:
        @wraps(view)
        def bound(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not may(request, VIEW) or not may(request, needs):
                raise refuse(request, view.__name__.replace("_", " "))
            return view(self, request, *args, **kwargs)

        return bound

    def _pattern(self, route: str, view: Page, name: str) -> URLPattern:
        guarded: Any = self.admin_site.admin_view(view)
        # Each action opens transactions of its own; a look must not hold the database.
        guarded._non_atomic_requests = EveryAlias()
        pattern: URLPattern = path(route, guarded, name=f"soc_tasks_console_{name}")
        return pattern

    def render(
        self,
        request: HttpRequest,
        name: str,
        title: str,
        values: Mapping[str, Any],
        *,
        tab: str = "",
        live: bool = False,
        poll: int = 3,
    ) -> HttpResponse:
        """Return a page, or of one that keeps itself up to date the part that changes.

        Args:
            request: the request.
            name: of the template; the part that changes is in `name_live`.
            title: the page's title.
            values: what the template shows.
            tab: name of the page that is marked among the links.
            live: whether it keeps itself up to date.
            poll: seconds between two looks.
        """
        context = {**values, "may": read_rights(request), "here": request.get_full_path()}
        if live and request.headers.get("HX-Request") == "true":
            return TemplateResponse(request, f"soc_tasks/console/{name}_live.html", context)
        request.current_app = self.admin_site.name
        context |= {
            **self.admin_site.each_context(request),
            "title": title,
            "subtitle": None,
            "tabs": [
                (self.url(one), label, one == tab) for one, label in TABS if one != "start" or may(request, START)
            ],
            "live_template": f"soc_tasks/console/{name}_live.html" if live else "",
            "poll": poll,
            "has_htmx": apps.is_installed("django_htmx"),
        }
        return TemplateResponse(request, f"soc_tasks/console/{name}.html", context)

    def go_back(self, request: HttpRequest, name: str, *args: Any) -> HttpResponse:
        """Redirect to where a form was sent from, or to one of the pages."""
        back = request.POST.get("next", "")
        if not url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure()):
            back = self.url(name, *args)
        return HttpResponseRedirect(back)


def may(request: HttpRequest, permission: str) -> bool:
    """Tell whether the user has a permission."""
    user: Any = getattr(request, "user", None)
    return bool(user is not None and user.is_active and user.has_perm(permission))


def read_rights(request: HttpRequest) -> dict[str, bool]:
    """Return what the user may do, for templates."""
    rights = {"operate": OPERATE, "start": START, "payloads": PAYLOADS}
    return {name: may(request, permission) for name, permission in rights.items()}


def open_inspector() -> tuple[Inspector | None, str]:
    """Return what looks into the queues; or None, and why there is nothing."""
    try:
        return get_backend().inspect(), ""
    except SocTasksError as error:
        return None, str(error)


def read_number(text: str | None) -> int | None:
    """Return a number of a query string, or None where it is none."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None
