"""The first page: what waits, what runs, what failed, and what wants to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern

from soc_tasks.logic.letter_pages import CAP, LetterFilter, count_letters
from soc_tasks.views.console.iterations import find_running

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [console.page("", show_overview, "changelist")]


def show_overview(console: Console, request: HttpRequest) -> HttpResponse:
    """Show how things stand."""
    number, is_more = count_letters(LetterFilter())
    values = {"running": find_running(), "failures": number, "more_failures": is_more, "cap": CAP}
    return console.render(request, "overview", "Console", values, tab="changelist", live=True)
