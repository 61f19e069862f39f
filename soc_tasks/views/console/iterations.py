"""Iterations: how far they are, shard by shard; pause, resume, cancel; their failed items."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern

from soc_tasks.errors import SocTasksError
from soc_tasks.logic.iterations import Iteration
from soc_tasks.logic.progress import ENDED
from soc_tasks.values import FailedItem
from soc_tasks.views.console.actions import perform
from soc_tasks.views.console.pages import PAYLOADS, may, read_number
from soc_tasks.views.progress_texts import write_texts

if TYPE_CHECKING:
    from soc_tasks.views.console.pages import Console

PAGE_SIZE = 25
#: Failed items that are shown of one iteration, and shards in its grid.
MOST_ITEMS = 100
MOST_SHARDS = 200

#: For how long the task that starts one may wait: scheduled as far ahead as is possible, and a day for its attempts.
LONGEST_WAIT = timedelta(days=31)
_ID = re.compile(r"[0-9a-f]{32}")

#: What is done to an iteration, the status that it leads to, and from which it can be done.
STEERING = {
    "pause": ("paused", ("running",)),
    "resume": ("running", ("paused", "failed")),
    "cancel": ("cancelled", ("running", "paused", "failed")),
}


def urls(console: Console) -> list[URLPattern]:
    """Return the patterns of these pages."""
    return [
        console.page("iterations/", show_iterations, "iterations"),
        console.page("iterations/<str:iteration>/", show_iteration, "iteration"),
        console.action("iterations/<str:iteration>/steer/", steer, "iteration_steer"),
        console.action("iterations/<str:iteration>/retry/", retry, "iteration_retry"),
    ]


def show_iterations(console: Console, request: HttpRequest) -> HttpResponse:
    """Show the newest iterations, or those before one of them."""
    before = request.GET.get("before") or None
    found = Iteration.all(limit=PAGE_SIZE + 1, before=before)
    values = {
        "rows": [describe(iteration) for iteration in found[:PAGE_SIZE]],
        "next": f"?before={found[PAGE_SIZE - 1].id}" if len(found) > PAGE_SIZE else "",
        "is_first": before is None,
        "first": "?",
    }
    return console.render(request, "iterations", "Iterations", values, tab="iterations", live=True)


def describe(iteration: Iteration) -> dict[str, Any]:
    """Return what is shown of an iteration."""
    progress = iteration.progress
    return {
        "iteration": iteration,
        "name": iteration.name.rpartition(".")[2],
        "share": "" if progress.share is None else f"{progress.share:.4f}",
        "text": write_texts(progress),
        "verbs": [verb for verb, (_, before) in STEERING.items() if iteration.status in before],
        "has_ended": iteration.status in ENDED,
    }


def show_iteration(console: Console, request: HttpRequest, iteration: str) -> HttpResponse:
    """Show one iteration, or that it waits to start."""
    try:
        found = Iteration.get(iteration)
    except Iteration.DoesNotExist:
        if not _may_come(iteration):
            raise Http404(f"There is no iteration {iteration!r}.") from None
        return console.render(
            request, "iteration", "Iteration", {"waits": True, "name": iteration}, tab="iterations", live=True, poll=2
        )
    items: list[FailedItem] = found.failed_items(limit=MOST_ITEMS)
    values = {
        **describe(found),
        "shards": found.shards[:MOST_SHARDS],
        "more_shards": max(0, len(found.shards) - MOST_SHARDS),
        "items": items,
        "item_count": len(items) if len(items) < MOST_ITEMS else found.count_failed_items(),
        "origin": found.retries or "",
        "shows_errors": may(request, PAYLOADS),
        "cancel": console.url("iterations"),
    }
    return console.render(request, "iteration", found.name, values, tab="iterations", live=True, poll=2)


def _may_come(iteration_id: str) -> bool:
    """Tell whether an iteration of this id may not have begun yet: an id begins with the time of its task's making."""
    if not _ID.fullmatch(iteration_id):
        return False
    age = datetime.now(UTC).timestamp() - int(iteration_id[:12], 16) / 1000
    return -60 < age < LONGEST_WAIT.total_seconds()


def steer(console: Console, request: HttpRequest, iteration: str) -> HttpResponse:
    """Pause, resume or cancel an iteration."""
    verb = request.POST.get("verb", "")
    if verb not in STEERING:
        raise Http404
    found, (reached, _) = _find(iteration), STEERING[verb]

    def work() -> str:
        getattr(found, verb)()
        if found.status != reached:
            raise ValueError(f"The iteration is {found.status}; {verb} has no effect on it.")
        return f"The iteration {found.id} is {found.status}."

    perform(request, f"{verb} iteration", f"{found.id} ({found.name})", work)
    return console.go_back(request, "iteration", found.id)


def retry(console: Console, request: HttpRequest, iteration: str) -> HttpResponse:
    """Try failed items again: those that were selected, or all."""
    found = _find(iteration)
    every = request.POST.get("all") == "1"
    chosen = [number for text in request.POST.getlist("item") if (number := read_number(text)) is not None]
    started: list[str] = []

    def work() -> str:
        if not every and not chosen:
            raise ValueError("No failed items were selected.")
        run = found.retry_failed(None if every else chosen)
        if run is None:
            raise LookupError("There are no failed items any more.")
        started.append(run.id)
        return f"{run.total or 0:,} failed items are tried again by iteration {run.id}."

    what = "all failed items" if every else f"failed items {', '.join(map(str, chosen))}"
    if perform(request, "retry failed items", f"{what:.500} of {found.id} ({found.name})", work):
        return HttpResponseRedirect(console.url("iteration", started[0]))
    return console.go_back(request, "iteration", found.id)


def _find(iteration_id: str) -> Iteration:
    """Return an iteration, or raise Http404."""
    try:
        return Iteration.get(iteration_id)
    except (SocTasksError, LookupError) as error:
        raise Http404(str(error)) from error
