"""Dead letters: by the class of their error, one by one, and all that match; retried or discarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern

from soc_tasks.logic.letter_pages import (
    CAP,
    LetterFilter,
    Tally,
    count_letters,
    find_newest,
    find_page,
    work_off,
    work_on,
)
from soc_tasks.logic.letters import LetterNotFoundError, discard_letters, name_work, retry_letter
from soc_tasks.meta import read_meta
from soc_tasks.state import get_state
from soc_tasks.state.base import DeadLetter
from soc_tasks.views.console.actions import perform
from soc_tasks.views.console.pages import PAYLOADS, may, read_number
from soc_tasks.views.console.tasks import show_payload

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console

PAGE_SIZE = 50
#: Classes of errors that are shown.
MOST_GROUPS = 20
#: Seconds of one request that works off all that match; what is left is offered to be gone on with.
SECONDS = 10.0

DONE = {"retry": "queued again", "discard": "discarded"}


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [
        console.page("failures/", show_failures, "failures"),
        console.page("failures/<int:letter>/", show_failure, "failure"),
        console.action("failures/<int:letter>/act/", act, "failure_act"),
        console.action("failures/selected/", act_on_selected, "failures_selected"),
        console.form("failures/all/", act_on_all, "failures_all"),
    ]


def show_failures(console: Console, request: HttpRequest) -> HttpResponse:
    """Show dead letters by class, and a page of those that are looked for."""
    wanted = _read_filter(request)
    before = read_number(request.GET.get("before"))
    groups, is_whole = get_state().group_dead_letters(most=MOST_GROUPS, cap=CAP)
    page = find_page(wanted, before=before, limit=PAGE_SIZE)
    given = _write_filter(wanted)
    values = {
        "groups": sorted(groups, key=lambda group: -group.number),
        "is_whole": is_whole,
        "cap": CAP,
        "rows": [_row(letter) for letter in page.letters],
        "page": page,
        "wanted": wanted,
        "chosen": wanted.error_type,
        "is_filtered": bool(given),
        "given": urlencode(given),
        "is_first": before is None,
        "first": f"?{urlencode(given)}",
        "next": f"?{urlencode({**given, 'before': page.next})}" if page.next is not None else "",
        "clear": console.url("failures"),
    }
    return console.render(request, "failures", "Failures", values, tab="failures", live=True, poll=5)


def _read_filter(request: HttpRequest) -> LetterFilter:
    given = request.POST if request.method == "POST" else request.GET
    error_type = given.get("error")
    return LetterFilter(
        queue=given.get("queue", "").strip()[:200],
        error_type=None if error_type is None else error_type[:255],
        text=given.get("text", "").strip()[:500],
        # What can be searched for can be guessed.
        sees_errors=may(request, PAYLOADS),
    )


def _write_filter(wanted: LetterFilter) -> dict[str, str]:
    given = {name: value for name, value in (("queue", wanted.queue), ("text", wanted.text)) if value}
    return given if wanted.error_type is None else {**given, "error": wanted.error_type}


def _row(letter: DeadLetter) -> dict[str, Any]:
    meta = read_meta(letter.task)
    return {
        "letter": letter,
        "task": letter.task,
        "what": name_work(letter),
        "iteration": meta.slice.iteration if meta is not None and meta.slice is not None else "",
    }


def show_failure(console: Console, request: HttpRequest, letter: int) -> HttpResponse:
    """Show one dead letter."""
    found = _find(letter)
    values = {**_row(found), **show_payload(request, found.task), "cancel": console.url("failures")}
    return console.render(request, "failure", f"{name_work(found)} failed", values, tab="failures")


def act(console: Console, request: HttpRequest, letter: int) -> HttpResponse:
    """Retry or discard one dead letter."""
    verb = _read_verb(request)
    found = _find(letter)

    def work() -> str:
        if verb == "retry":
            return f"{name_work(found)}: {retry_letter(letter)}."
        if not discard_letters([found]):
            raise LetterNotFoundError(f"There is no dead letter {letter} any more.")
        return f"The dead letter {letter} was discarded."

    perform(request, f"{verb} failure", f"{letter} ({name_work(found)})", work)
    return HttpResponseRedirect(console.url("failures"))


def act_on_selected(console: Console, request: HttpRequest) -> HttpResponse:
    """Retry or discard the dead letters that were selected."""
    verb = _read_verb(request)
    chosen = [number for text in request.POST.getlist("letter") if (number := read_number(text)) is not None][:1000]

    def work() -> str:
        if not chosen:
            raise ValueError("No dead letters were selected.")
        found = [found for number in chosen if (found := get_state().get_dead_letter(number)) is not None]
        tally = Tally(gone=len(chosen) - len(found))
        work_on(verb, found, tally)
        return _tell(verb, tally)

    perform(request, f"{verb} failures", f"{', '.join(map(str, chosen)):.500}", work, together=False)
    return console.go_back(request, "failures")


def act_on_all(console: Console, request: HttpRequest) -> HttpResponse:
    """Ask how many, then retry or discard all that match; what takes too long for one request is asked for again."""
    given = request.POST if request.method == "POST" else request.GET
    verb, wanted = given.get("verb", ""), _read_filter(request)
    if verb not in DONE:
        raise Http404
    # Those that come later, or fail again, are not meant.
    newest = read_number(given.get("up_to"))
    up_to = find_newest() if newest is None else newest
    described = ", ".join(f"{name} {value!r}" for name, value in _write_filter(wanted).items()) or "all"
    if request.method == "POST":
        tallies: list[Tally] = []

        def work() -> str:
            tallies.append(work_off(verb, wanted, before=up_to + 1, seconds=SECONDS))
            return _tell(verb, tallies[0])

        done = perform(request, f"{verb} failures", f"{described}, up to {up_to}", work, together=False)
        if not done or tallies[0].next is None:
            return HttpResponseRedirect(console.url("failures"))
        up_to = tallies[0].next - 1
        messages.warning(request, "That is not all yet: go on below.")
        query = urlencode({**_write_filter(wanted), "verb": verb, "up_to": up_to})
        return HttpResponseRedirect(f"{console.url('failures_all')}?{query}")
    number, is_more = count_letters(wanted, up_to=up_to)
    values = {
        "verb": verb,
        "number": number,
        "is_more": is_more,
        "up_to": up_to,
        "fields": _write_filter(wanted),
        "described": described,
        "cancel": console.url("failures"),
    }
    return console.render(request, "failures_all", f"{verb.capitalize()} failures?", values, tab="failures")


def _read_verb(request: HttpRequest) -> str:
    verb = request.POST.get("verb", "")
    if verb not in DONE:
        raise Http404
    return verb


def _tell(verb: str, tally: Tally) -> str:
    parts = [f"{tally.done:,} dead letters were {DONE[verb]}"]
    if tally.gone:
        parts.append(f"{tally.gone:,} were gone already, or went with another one")
    if tally.failed:
        parts.append(f"{tally.failed:,} could not be: {' / '.join(tally.errors)}")
    return "; ".join(parts) + "."


def _find(letter_id: int) -> DeadLetter:
    """Return a dead letter, or raise Http404."""
    letter = get_state().get_dead_letter(letter_id) if letter_id < 2**63 else None
    if letter is None:
        raise Http404(f"There is no dead letter {letter_id} any more.")
    return letter
