"""The audit log: who did what on these pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern

from soc_tasks.state.audit import list_entries
from soc_tasks.views.console.pages import read_number

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console

PAGE_SIZE = 50


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [console.page("audit/", show_log, "audit")]


def show_log(console: Console, request: HttpRequest) -> HttpResponse:
    """Show the newest entries, or those before one of them."""
    before = read_number(request.GET.get("before"))
    entries = list_entries(limit=PAGE_SIZE + 1, before=before)
    values = {
        "entries": entries[:PAGE_SIZE],
        "next": f"?before={entries[PAGE_SIZE - 1].id}" if len(entries) > PAGE_SIZE else "",
        "is_first": before is None,
        "first": "?",
    }
    return console.render(request, "audit", "Audit log", values, tab="audit")
